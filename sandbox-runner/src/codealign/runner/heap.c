/*
 * The memory of a fork server, arranged so that little of it is copied for an execution.
 *
 * After a fork, gVisor copies private memory as soon as one page of it is written: everything up to two megabytes
 * around, within the mapping. Executions write to some 2,000 of a server's 40,000 blocks, mostly to reference counts,
 * but those lie everywhere. So this library, which is preloaded into fork servers, puts them together: blocks
 * that executions write to into one small mapping, all others into another one.
 *
 * Which blocks these are is known from practice (practice.py). A block is identified by the sizes of the allocations
 * before it, because an interpreter that starts in the same way allocates in the same order. Where that fails, a block
 * lies in the wrong mapping, which costs time and changes nothing else.
 *
 * `heap_seal` ends this. From then on the C library allocates, and blocks of the server are never freed: an execution
 * would write to them. Nothing here is needed for isolation.
 *
 * With PRACTICE defined, every block has pages of its own, and `heap_watch` records the written ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void __libc_free(void *);
extern char **environ;

enum { GRAIN = 16, PAGE = 4096, CLASSES = 256, HISTORY = 8, SEEN = 1 << 18, FREE = 1 << 30 };
static const size_t CHUNK = 2 << 20;

struct block {
    uint32_t class, hot;
    uint64_t identity; /* a block's data begin behind it; a free block's with the next free one */
};

struct region {
    char *start, *next, *end;
    struct block *free[CLASSES];
};

static struct region regions[2]; /* cold, hot */
static int sealed;
static const uint64_t *profile; /* identities of the blocks that executions write to, ascending */
static size_t profile_length;
static struct {
    uint32_t recent[HISTORY], count;
    struct {
        uint32_t sizes, times;
    } *seen;
} order;

#ifdef PRACTICE
enum { MEBIBYTES = 2048 };
#else
enum { MEBIBYTES = 128 };
#endif

static void reserve(void)
{
    size_t each = (size_t)MEBIBYTES << 20, gap = CHUNK;
    char *place = mmap(NULL, 2 * each + 2 * gap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        _exit(71);
    char *lowest = (char *)(((uintptr_t)place + CHUNK - 1) / CHUNK * CHUNK);
    for (int hot = 0; hot < 2; hot++) {
        struct region *region = regions + hot;
        region->start = region->next = lowest + hot * (each + gap);
        region->end = region->start + each;
        mprotect(region->start, each, PROT_READ | PROT_WRITE);
    }
    order.seen = mmap(NULL, SEEN * sizeof *order.seen, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (order.seen == MAP_FAILED)
        _exit(71);
}

/* Classes 1 to 64 are multiples of 16 bytes. Above, four classes double the size. */
static uint32_t class_of(size_t size)
{
    if (size <= 64 * GRAIN)
        return size ? (size + GRAIN - 1) / GRAIN : 1;
    int power = 63 - __builtin_clzll(size - 1); /* 2^power < size <= 2^(power + 1) */
    return 65 + (power - 10) * 4 + (((size - 1) >> (power - 2)) & 3);
}

static size_t capacity_of(uint32_t class)
{
    return class <= 64 ? class * GRAIN : (size_t)(5 + (class - 65) % 4) << ((class - 65) / 4 + 8);
}

/* Bytes that a block takes. */
static size_t extent_of(uint32_t class)
{
    size_t extent = sizeof(struct block) + capacity_of(class);
#ifdef PRACTICE
    extent = (extent + PAGE - 1) / PAGE * PAGE;
#endif
    return extent;
}

static uint64_t mixed(uint64_t value, uint64_t more)
{
    value = (value ^ more) * 0x9E3779B97F4A7C15;
    return value ^ value >> 29;
}

/* Identify the next allocation: by its size, those of the allocations before it, and how often that has occurred. */
static uint64_t identify(uint32_t class)
{
    order.recent[order.count++ % HISTORY] = class;
    uint64_t sizes = 1;
    for (int i = 0; i < HISTORY; i++)
        sizes = mixed(sizes, order.recent[(order.count + i) % HISTORY]);
    uint32_t tag = sizes >> 32 | 1, place = sizes % SEEN;
    for (int i = 0; order.seen[place].sizes && order.seen[place].sizes != tag && i < 64; i++)
        place = (place + 1) % SEEN;
    order.seen[place].sizes = tag;
    return mixed(sizes, ++order.seen[place].times);
}

static int is_written(uint64_t identity)
{
    size_t low = 0, high = profile_length;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (profile[middle] < identity)
            low = middle + 1;
        else
            high = middle;
    }
    return low < profile_length && profile[low] == identity;
}

/* Not by the reserved range: what lies beyond a region's blocks is given back, and others may get it. */
static int is_ours(const void *data)
{
    for (int hot = 0; hot < 2; hot++)
        if ((const char *)data > regions[hot].start && (const char *)data < regions[hot].next)
            return 1;
    return 0;
}

static void *allocate(size_t size)
{
    if (!regions[0].start)
        reserve();
    if (size > (size_t)64 << 20)
        return __libc_malloc(size);
    uint32_t class = class_of(size);
    uint64_t identity = identify(class);
    uint32_t hot = is_written(identity);
    struct region *region = regions + hot;
    struct block *block = region->free[class];
    if (block)
        region->free[class] = *(struct block **)(block + 1);
    else {
        size_t whole = extent_of(class);
        if (whole > (size_t)(region->end - region->next))
            return __libc_malloc(size);
        block = (struct block *)region->next;
        region->next += whole;
    }
    *block = (struct block){class, hot, identity};
    return block + 1;
}

static void release(void *data)
{
    struct block *block = (struct block *)data - 1;
    struct region *region = regions + block->hot;
    *(struct block **)data = region->free[block->class];
    region->free[block->class] = block;
    block->class |= FREE;
}

/* ---- What the C library offers ---- */

void *malloc(size_t size)
{
    return sealed ? __libc_malloc(size) : allocate(size);
}

void free(void *data)
{
    if (!is_ours(data))
        __libc_free(data);
    else if (!sealed)
        release(data);
}

void *calloc(size_t count, size_t each)
{
    size_t size;
    if (sealed)
        return __libc_calloc(count, each);
    if (__builtin_mul_overflow(count, each, &size)) {
        errno = ENOMEM;
        return NULL;
    }
    void *data = allocate(size);
    return data ? memset(data, 0, size) : NULL;
}

void *realloc(void *data, size_t size)
{
    if (!data)
        return malloc(size);
    if (!is_ours(data))
        return __libc_realloc(data, size);
    size_t capacity = capacity_of(((struct block *)data - 1)->class);
    if (size == 0) {
        free(data);
        return NULL;
    }
    if (size <= capacity && (sealed || size > capacity / 2))
        return data;
    void *moved = malloc(size);
    if (!moved)
        return NULL;
    memcpy(moved, data, size < capacity ? size : capacity);
    free(data);
    return moved;
}

void *reallocarray(void *data, size_t count, size_t each)
{
    size_t size;
    if (__builtin_mul_overflow(count, each, &size)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(data, size);
}

/* ---- Start and end ---- */

/* A variable that is meant for this library only; forgotten before the interpreter sees it. */
static char *taken(const char *name)
{
    size_t length = strlen(name);
    for (char **each = environ; each && *each; each++)
        if (!strncmp(*each, name, length) && (*each)[length] == '=') {
            static char value[1024]; /* of the last call */
            strncpy(value, *each + length + 1, sizeof value - 1);
            memset(*each, 0, strlen(*each));
            for (; *each; each++)
                each[0] = each[1];
            return value;
        }
    return NULL;
}

__attribute__((constructor)) static void begin(void)
{
    taken("LD_PRELOAD");
    taken("LD_BIND_NOW");
    char *path = taken("CODEALIGN_HEAP");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    off_t size = lseek(file, 0, SEEK_END);
    void *found = size > 0 ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    if (found != MAP_FAILED) {
        profile = found;
        profile_length = size / sizeof *profile;
    }
    close(file);
}

/* Call once, before the first execution. Gives back the address space that is not used. */
void heap_seal(void)
{
    if (!regions[0].start || sealed)
        return;
    sealed = 1;
    for (int hot = 0; hot < 2; hot++) {
        char *end = (char *)(((uintptr_t)regions[hot].next + PAGE - 1) / PAGE * PAGE);
        munmap(end, regions[hot].end - end);
    }
    munmap(order.seen, SEEN * sizeof *order.seen);
}

#ifdef PRACTICE

static uint8_t *written; /* for each page of the cold region, shared with the executions */
static int is_in_gvisor;

static void note(int number, siginfo_t *about, void *context)
{
    char *page = (char *)((uintptr_t)about->si_addr / PAGE * PAGE);
    (void)context;
    if (page < regions[0].start || page >= regions[0].next) {
        signal(number, SIG_DFL);
        return;
    }
    written[(page - regions[0].start) / PAGE] = 1;
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
}

/* Call before the first fork. */
void heap_prepare(int in_gvisor)
{
    is_in_gvisor = in_gvisor;
    size_t pages = (regions[0].next - regions[0].start) / PAGE;
    written = mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (written == MAP_FAILED)
        _exit(71);
}

/* Call in an execution's process: from now on, record what it writes to. */
void heap_watch(void)
{
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    /* gVisor makes a whole piece writable when it copies it, so it must have copied all of them. */
    for (volatile char *page = regions[0].start; is_in_gvisor && page < regions[0].next; page += PAGE)
        *page = *page;
    mprotect(regions[0].start, regions[0].next - regions[0].start, PROT_READ);
}

static int ascending(const void *left, const void *right)
{
    uint64_t one = *(const uint64_t *)left, other = *(const uint64_t *)right;
    return (one > other) - (one < other);
}

/* The identities of all blocks that were written to, ascending. Returns their number, at most `most`. */
size_t heap_written(uint64_t *found, size_t most)
{
    size_t length = 0;
    for (char *at = regions[0].start; at < regions[0].next;) {
        struct block *block = (struct block *)at;
        size_t whole = extent_of(block->class & ~FREE), page = (at - regions[0].start) / PAGE;
        if (!(block->class & FREE) && memchr(written + page, 1, whole / PAGE) && length < most)
            found[length++] = block->identity;
        at += whole;
    }
    qsort(found, length, sizeof *found, ascending);
    return length;
}

#endif
