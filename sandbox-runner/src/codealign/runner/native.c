/*
 * The part of the fork server and its children that is machine code, for two reasons.
 *
 * Speed. A parent that runs no Python between two forks does not write to its pages. gVisor copies private memory two
 * megabytes at a time, so each page that a Python loop touches costs the parent and the child 500 further pages.
 *
 * Trust. A program can find, read, replace and call any Python object of its process. Therefore nothing that decides
 * its verdict is a Python object: tokens, counts and the end of the tests are in this file's static memory, and every
 * function that a program could find does nothing once the program has begun.
 *
 * The interpreter's functions are declared here according to its stable ABI, so no headers are needed to build this.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The interpreter ---- */

typedef struct _object PyObject;
typedef struct _frame PyFrameObject;
typedef PyObject *(*PyCFunction)(PyObject *, PyObject *);
typedef struct {
    const char *name;
    PyCFunction function;
    int flags;
    const char *doc;
} PyMethodDef;
enum { METH_VARARGS = 1, METH_KEYWORDS = 2, METH_NOARGS = 4, METH_O = 8, API_VERSION = 1013 };

static struct {
    intptr_t references;
    void *type, *init;
    intptr_t index;
    void *copy;
    const char *name, *doc;
    intptr_t size;
    PyMethodDef *methods;
    void *slots, *traverse, *clear, *release;
} definition;

extern char _Py_NoneStruct[], _Py_TrueStruct[];
extern PyObject *PyExc_AssertionError, *PyExc_Exception, *PyExc_RuntimeError;
extern int PyArg_ParseTuple(PyObject *, const char *, ...);
extern int PyBytes_AsStringAndSize(PyObject *, char **, intptr_t *);
extern void PyDict_Clear(PyObject *);
extern PyObject *PyDict_GetItemString(PyObject *, const char *);
extern int PyDict_SetItemString(PyObject *, const char *, PyObject *);
extern void PyErr_Clear(void);
extern int PyErr_ExceptionMatches(PyObject *);
extern void PyErr_Fetch(PyObject **, PyObject **, PyObject **);
extern PyObject *PyCFunction_NewEx(PyMethodDef *, PyObject *, PyObject *);
extern PyObject *PyErr_NoMemory(void);
extern PyObject *PyErr_Occurred(void);
extern void PyErr_Restore(PyObject *, PyObject *, PyObject *);
extern void PyErr_NormalizeException(PyObject **, PyObject **, PyObject **);
extern void PyErr_Print(void);
extern void PyErr_SetString(PyObject *, const char *);
extern PyObject *PyEval_EvalCode(PyObject *, PyObject *, PyObject *);
extern PyFrameObject *PyEval_GetFrame(void);
extern PyObject *PyFrame_GetCode(PyFrameObject *);
extern PyObject *PyFunction_GetDefaults(PyObject *);
extern int PyIndex_Check(PyObject *);
extern int PyFrame_GetLasti(PyFrameObject *);
extern int PyFrame_GetLineNumber(PyFrameObject *);
extern void *PyMem_RawRealloc(void *, size_t);
extern PyObject *PyList_GetItem(PyObject *, intptr_t);
extern intptr_t PyList_Size(PyObject *);
extern PyObject *PyModule_GetDict(PyObject *);
extern PyObject *PyModule_Create2(void *, int);
extern void PyOS_AfterFork_Child(void);
extern void PyOS_BeforeFork(void);
extern PyObject *PyObject_Call(PyObject *, PyObject *, PyObject *);
extern PyObject *PyObject_CallFunction(PyObject *, const char *, ...);
extern PyObject *PyObject_CallFunctionObjArgs(PyObject *, ...);
extern PyObject *PyObject_CallMethod(PyObject *, const char *, const char *, ...);
extern PyObject *PyObject_GetAttrString(PyObject *, const char *);
extern PyObject *PyImport_AddModule(const char *);
extern PyObject *PyImport_ImportModule(const char *);
extern int PyObject_IsInstance(PyObject *, PyObject *);
extern int PyObject_SetAttrString(PyObject *, const char *, PyObject *);
extern int PyObject_IsTrue(PyObject *);
extern int PyRun_SimpleString(const char *);
extern int PySys_AddAuditHook(int (*)(const char *, PyObject *, void *), void *);
extern PyObject *PyTuple_GetItem(PyObject *, intptr_t);
extern PyObject *PyTuple_GetSlice(PyObject *, intptr_t, intptr_t);
extern intptr_t PyTuple_Size(PyObject *);
extern const char *PyUnicode_AsUTF8AndSize(PyObject *, intptr_t *);
extern PyObject *PyUnicode_FromString(const char *);
extern void Py_DecRef(PyObject *);
extern void Py_IncRef(PyObject *);

#define NONE ((PyObject *)_Py_NoneStruct)
#define TRUE ((PyObject *)_Py_TrueStruct)

static PyObject *nothing(void)
{
    Py_IncRef(NONE);
    return NONE;
}

static void check(int failed, const char *what)
{
    if (!failed)
        return;
    dprintf(2, "sandbox: %s: %s\n", what, strerror(errno));
    _exit(70);
}

/* ---- Reports: evidence.py is the other side ---- */

enum kind { BEGAN, PROVED, UNPROVED, FAILED, RAISED, UNCOMPILED, UNASSERTED, KINDS };
enum flag { STARTED = 1, TRACED = 2, TAMPERED = 4, FAILURE = 8, UNITTEST = 16 };
enum { TOKEN = 16, TEXT = 2000 };

struct report {
    unsigned char token[TOKEN];
    uint8_t kind, flags, zero[2];
    uint32_t executed, line;
    char text[TEXT];
};

static struct {
    int channel, begun;
    pid_t process;
    volatile uint8_t *flags; /* shared with the processes that the program forks */
    uint32_t executed;
    unsigned char tokens[KINDS][TOKEN];
} witness;

/* Each kind has a different token, so a report that a program intercepts cannot be used to forge another kind. */
static void report(enum kind kind, uint32_t line, const char *text, intptr_t size)
{
    static struct report packet;
    if (size > TEXT)
        size = TEXT;
    memcpy(packet.token, witness.tokens[kind], TOKEN);
    packet.kind = kind;
    packet.flags = witness.flags ? *witness.flags : 0;
    packet.executed = witness.executed;
    packet.line = line;
    if (size)
        memcpy(packet.text, text, size);
    while (write(witness.channel, &packet, sizeof packet - TEXT + size) < 0 && errno == EINTR)
        ;
}

/* A forked child may only report that an assertion failed. */
static void forget_tokens(void)
{
    for (int kind = 0; kind < KINDS; kind++)
        if (kind != FAILED)
            memset(witness.tokens[kind], 0, TOKEN);
}

static PyObject *report_early(PyObject *self, PyObject *arguments)
{
    int kind, line;
    PyObject *bytes;
    char *text;
    intptr_t size;
    if (!PyArg_ParseTuple(arguments, "iiO", &kind, &line, &bytes) || PyBytes_AsStringAndSize(bytes, &text, &size))
        return NULL;
    if (!witness.begun && kind >= UNCOMPILED && kind < KINDS)
        report(kind, line, text, size);
    return nothing();
}

/* ---- Assertions: instrument.py inserts a call of a witness at each assertion of the tests ---- */

static struct site {
    PyObject *code;
    int offset;
} *sites;
static int site_count;

static PyObject *watch(PyObject *self, PyObject *arguments)
{
    PyObject *code;
    int offset;
    if (!PyArg_ParseTuple(arguments, "Oi", &code, &offset))
        return NULL;
    if (witness.begun)
        return nothing();
    struct site *more = PyMem_RawRealloc(sites, (site_count + 1) * sizeof *sites);
    if (!more)
        return PyErr_NoMemory();
    Py_IncRef(code);
    sites = more;
    sites[site_count++] = (struct site){code, offset};
    return nothing();
}

static int is_site(PyFrameObject *frame)
{
    static int recent; /* an assertion in a loop is found at once */
    PyObject *code = PyFrame_GetCode(frame);
    int offset = PyFrame_GetLasti(frame), found = 0;
    for (int i = 0; i < site_count && !found; i++) {
        int at = (recent + i) % site_count;
        found = sites[at].code == code && sites[at].offset == offset;
        if (found)
            recent = at;
    }
    Py_DecRef(code);
    return found;
}

/* The frame that calls a witness, or NULL if the call comes from elsewhere or from another instruction: not counted. */
static PyFrameObject *caller(void)
{
    PyFrameObject *frame = PyEval_GetFrame();
    return witness.begun && frame && is_site(frame) ? frame : NULL;
}

static void count(PyFrameObject *site, int holds)
{
    witness.executed++; /* in a forked child this counts for nobody, but a failure does */
    if (!holds && !(*witness.flags & FAILURE)) {
        *witness.flags |= FAILURE;
        report(FAILED, PyFrame_GetLineNumber(site), NULL, 0);
    }
}

static PyObject *assertion(PyObject *self, PyObject *holds)
{
    PyFrameObject *site = caller();
    if (site)
        count(site, holds == TRUE);
    return nothing();
}

/* ---- Determined once by the fork server ---- */

enum { ROOM = 16 << 20 };

static struct {
    int uid, gid, inodes, terminals;
    long long base_memory;
    size_t stack; /* default stack size of a thread, with its guard */
    struct {
        unsigned short length;
        char *instructions;
    } filter;
} confinement;

/* ---- Replacements of interpreter functions ---- */

enum own { SET_TRACE, SET_PROFILE, START_THREAD, START_JOINABLE, OWN };
static PyObject *interpreters_own[OWN]; /* NULL if this version has none */

/*
 * The audit events of `sys.settrace` and `sys.setprofile` do not contain the value. Debuggers and doctest end by
 * setting None, which skips no statement. A program that calls the interpreter's original functions counts as having
 * set one.
 */
static int sets_none; /* the next event belongs to a call with None */

static PyObject *set_tracer(enum own which, PyObject *function)
{
    sets_none = function == NONE;
    PyObject *done = PyObject_CallFunctionObjArgs(interpreters_own[which], function, NULL);
    sets_none = 0;
    return done;
}

static PyObject *set_trace(PyObject *self, PyObject *function)
{
    return set_tracer(SET_TRACE, function);
}

static PyObject *set_profile(PyObject *self, PyObject *function)
{
    return set_tracer(SET_PROFILE, function);
}

static void raise_limit(int which, rlim_t by, rlim_t spare)
{
    struct rlimit limit;
    getrlimit(which, &limit);
    if (limit.rlim_cur + by + spare <= limit.rlim_max) {
        limit.rlim_cur += by;
        setrlimit(which, &limit);
    }
}

/*
 * A thread is cheap, but the kernel counts it like a process, and its stack is eight megabytes of addresses, of which
 * it seldom touches a tenth. A hundred threads would exceed limits meant for processes and for memory in use. So each
 * start of a thread raises both limits, within the hard limits. A program that uses the additional space otherwise is
 * killed for the memory that it touches, or for its processes.
 */
static PyObject *start_with_room(enum own which, PyObject *arguments, PyObject *named)
{
    if (witness.begun) {
        raise_limit(RLIMIT_AS, confinement.stack, ROOM);
        raise_limit(RLIMIT_NPROC, 1, 0);
    }
    return PyObject_Call(interpreters_own[which], arguments, named);
}

static PyObject *start_thread(PyObject *self, PyObject *arguments, PyObject *named)
{
    return start_with_room(START_THREAD, arguments, named);
}

static PyObject *start_joinable(PyObject *self, PyObject *arguments, PyObject *named)
{
    return start_with_room(START_JOINABLE, arguments, named);
}

static PyMethodDef stand_ins[OWN] = {
    {"settrace", set_trace, METH_O, "Set the global debug tracing function."},
    {"setprofile", set_profile, METH_O, "Set the profiling function."},
    {"start_new_thread", (PyCFunction)(void *)start_thread, METH_VARARGS | METH_KEYWORDS, "Start a new thread."},
    {"start_joinable_thread", (PyCFunction)(void *)start_joinable, METH_VARARGS | METH_KEYWORDS, "Start a new thread."},
};

/* Call before importing modules that keep one of the functions under another name. */
static PyObject *stand_in(PyObject *self, PyObject *nothing_given)
{
    for (int i = 0; i < OWN && !witness.begun; i++) {
        const char *owner = i < START_THREAD ? "sys" : "_thread";
        PyObject *module = PyImport_ImportModule(owner), *name = PyUnicode_FromString(owner), *function;
        if (!module || !name)
            return NULL;
        interpreters_own[i] = PyObject_GetAttrString(module, stand_ins[i].name);
        if (!interpreters_own[i]) {
            PyErr_Clear();
            continue;
        }
        function = PyCFunction_NewEx(&stand_ins[i], module, name);
        if (!function || PyObject_SetAttrString(module, stand_ins[i].name, function))
            return NULL;
    }
    return nothing();
}

static PyObject *asserting; /* a tuple of the classes whose methods assert: unittest's, a mock's */
static struct {
    char text[TEXT];
    intptr_t size;
} missing; /* explanation if no assertion is executed */

static PyObject *expect(PyObject *self, PyObject *arguments)
{
    PyObject *classes, *bytes;
    char *text;
    if (!PyArg_ParseTuple(arguments, "OO", &classes, &bytes) || PyBytes_AsStringAndSize(bytes, &text, &missing.size))
        return NULL;
    if (witness.begun)
        return nothing();
    if (missing.size > TEXT)
        missing.size = TEXT;
    memcpy(missing.text, text, missing.size);
    Py_IncRef(classes);
    asserting = classes;
    return nothing();
}

/* Whether a function is a method of these classes, or numpy's. Other functions may have the same names. */
static int asserts(PyObject *function)
{
    static const char numpy[] = "numpy.testing";
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *bound = PyObject_GetAttrString(function, "__self__");
    PyErr_Clear();
    PyObject *module = PyObject_GetAttrString(function, "__module__");
    PyErr_Clear();
    const char *name = module ? PyUnicode_AsUTF8AndSize(module, NULL) : NULL;
    int found = (bound && PyObject_IsInstance(bound, asserting) == 1) || (name && !strncmp(name, numpy, strlen(numpy)));
    if (bound)
        Py_DecRef(bound);
    if (module)
        Py_DecRef(module);
    PyErr_Restore(type, value, trace); /* replaces exceptions raised here */
    return found;
}

/* Call the first argument with the others. */
static PyObject *call_first(PyObject *arguments, PyObject *keywords)
{
    PyObject *function = PyTuple_GetItem(arguments, 0);
    PyObject *others = function ? PyTuple_GetSlice(arguments, 1, PyTuple_Size(arguments)) : NULL;
    if (!others)
        return NULL;
    PyObject *result = PyObject_Call(function, others, keywords);
    Py_DecRef(others);
    return result;
}

/* Call an assertion and report its outcome. */
static PyObject *checked(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    PyFrameObject *site = caller();
    PyObject *result = call_first(arguments, keywords);
    if (site && result)
        count(site, 1);
    else if (site && PyErr_ExceptionMatches(PyExc_AssertionError) && asserts(PyTuple_GetItem(arguments, 0)))
        count(site, 0);
    return result;
}

/* ---- Actions with which a program could falsify its tests ---- */

static PyObject *argument(PyObject *arguments, intptr_t index)
{
    return index < PyTuple_Size(arguments) ? PyTuple_GetItem(arguments, index) : NONE;
}

/* The content of a str or bytes object; NULL for any other object. */
static const char *content_of(PyObject *object)
{
    char *text;
    intptr_t size;
    const char *found = PyUnicode_AsUTF8AndSize(object, NULL);
    if (!found) {
        PyErr_Clear();
        if (!PyBytes_AsStringAndSize(object, &text, &size))
            found = text;
        PyErr_Clear();
    }
    return found;
}

/* The same; "" for any other object. */
static const char *text_of(PyObject *object)
{
    const char *found = content_of(object);
    return found ? found : "";
}

static int among(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names))
        names++;
    return *names != NULL;
}

static const char *last_part(const char *path, char separator)
{
    const char *last = strrchr(path, separator);
    return last ? last + 1 : path;
}

static char extensions[256]; /* directory of the interpreter's extension modules */

/* ctypes and similar modules, or an extension module that the program brought with it. */
static int imports_machine_code(PyObject *arguments)
{
    static const char *const tools[] = {"_ctypes", "_testcapi", "_testinternalcapi", "_testlimitedcapi", NULL};
    char name[64];
    const char *path = text_of(argument(arguments, 1));
    if (among(last_part(text_of(argument(arguments, 0)), '.'), tools))
        return 1;
    if (!*path)
        return 0;
    snprintf(name, sizeof name, "%s", last_part(path, '/'));
    name[strcspn(name, ".")] = 0;
    return strncmp(path, extensions, strlen(extensions)) || strstr(path, "/../") || among(name, tools);
}

/* /proc/self/mem by any name, or an object that may return another path later. */
static int opens_memory(PyObject *path)
{
    const char *text = content_of(path);
    if (!text)
        return !PyIndex_Check(path); /* a descriptor */
    return !strcmp(last_part(text, '/'), "mem");
}

/* Erases the token before the program gets access to it. */
static void tampered(void)
{
    *witness.flags |= TAMPERED;
    memset(witness.tokens[PROVED], 0, TOKEN);
}

static int hook(const char *event, PyObject *arguments, void *data)
{
    static const char *const starters[] = {"os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen", NULL};
    static const char *const tracers[] = {"sys.settrace", "sys.setprofile", "sys.monitoring.register_callback", NULL};
    static const char *const searches[] = {
        "code.__new__", "gc.get_objects", "gc.get_referrers", "gc.get_referents", NULL,
    };
    static const char *const links[] = {"os.symlink", "os.link", "os.rename", NULL};
    if (!witness.begun)
        return 0;
    if (among(event, starters))
        *witness.flags |= STARTED;
    else if (among(event, tracers)) {
        if (!sets_none)
            *witness.flags |= TRACED;
        sets_none = 0; /* whatever the old function's destructor sets counts */
    }
    else if (among(event, searches) || (!strcmp(event, "import") && imports_machine_code(arguments))
             || (!strcmp(event, "object.__setattr__") && !strcmp(text_of(argument(arguments, 1)), "__code__"))
             || (!strcmp(event, "open") && opens_memory(argument(arguments, 0)))
             || (among(event, links) && !strcmp(last_part(text_of(argument(arguments, 0)), '/'), "mem")))
        tampered();
    else if (!strcmp(event, "sys.addaudithook")) {
        PyErr_SetString(PyExc_RuntimeError, "only one audit hook is allowed"); /* sys.addaudithook swallows it */
        return -1;
    }
    return 0;
}

/* ---- Running one program ---- */

static PyObject *prepare, *describe, *finish, *unittests, *verify;

/* Recorded here because a handler in the tests may swallow the exception. */
static void note_failed_run(PyFrameObject *site)
{
    if (site && PyErr_ExceptionMatches(PyExc_Exception))
        *witness.flags |= FAILURE;
}

/* Replacement of `unittest.main()` in the tests. */
static PyObject *unittest_main(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    PyFrameObject *site = caller();
    PyObject *result = PyObject_Call(unittests, arguments, keywords);
    if (!result)
        note_failed_run(site);
    return result;
}

/* Call a function named `run`. If it runs test cases, they must succeed. */
static PyObject *ran(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    PyFrameObject *site = caller();
    PyObject *result = call_first(arguments, keywords);
    if (!site || !result)
        return result;
    PyObject *judged = PyObject_CallMethod(unittests, "judge", "(O)", result);
    if (judged) {
        Py_DecRef(judged);
        return result;
    }
    note_failed_run(site);
    Py_DecRef(result);
    return NULL;
}

static PyObject *evaluate(PyObject *code, PyObject *tests, PyObject *names)
{
    PyObject *done = PyEval_EvalCode(code, names, names);
    if (!done || tests == NONE)
        return done;
    PyObject *name = PyUnicode_FromString("__main__");
    if (!name || PyDict_SetItemString(names, "__name__", name))
        return NULL;
    return PyEval_EvalCode(tests, names, names);
}

/* Raise the limit so that describing a MemoryError does not fail itself. */
static void make_room(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
}

/* Report the exception and return the exit status for it. */
static int end_by_exception(void)
{
    static char unknown[] = "other\0Exception\0\0(it could not be described)";
    PyObject *type, *value, *trace, *bytes;
    int status = 1, line = 0;
    char *text;
    intptr_t size;
    make_room();
    /* Python 3.11 sets no exception if it has no memory for a frame. */
    if (!PyErr_Occurred())
        PyErr_NoMemory();
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *told = PyObject_CallFunction(describe, "OOO", type, value ? value : NONE, trace ? trace : NONE);
    if (!told || !PyArg_ParseTuple(told, "iiO", &status, &line, &bytes)
        || PyBytes_AsStringAndSize(bytes, &text, &size)) {
        PyErr_Clear();
        text = unknown;
        size = sizeof unknown - 1;
    }
    if (getpid() == witness.process)
        report(RAISED, line, text, size);
    return status;
}

static int run(PyObject *code, PyObject *tests, PyObject *names, int total)
{
    PyObject *known = verify == NONE ? NULL : PyFunction_GetDefaults(verify);
    Py_IncRef(known ? known : NONE);
    witness.process = getpid();
    witness.flags = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(witness.flags == MAP_FAILED, "mmap");
    check(pthread_atfork(NULL, NULL, forget_tokens), "atfork");
    report(BEGAN, total, missing.text, missing.size);
    witness.begun = 1;
    if (!evaluate(code, tests, names))
        return end_by_exception();
    if (verify != NONE) {
        PyObject *same = PyObject_CallFunction(verify, NULL);
        if (!same || PyObject_IsTrue(same) != 1 || PyFunction_GetDefaults(verify) != known)
            *witness.flags |= UNITTEST;
        PyErr_Clear();
    }
    /* Children forked by the program also get here. */
    if (getpid() == witness.process) {
        int proved = (tests == NONE || witness.executed) && !(*witness.flags & ~STARTED);
        report(proved ? PROVED : UNPROVED, 0, NULL, 0);
    }
    return 0;
}

/* ---- Confinement: fresh namespaces, a private disk, limits, no capabilities ---- */

struct job {
    int64_t kind, cpu_seconds, memory_bytes, processes, threads, disk_bytes, channel;
    unsigned char tokens[KINDS][TOKEN];
};

static int put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    int failed = write(file, text, strlen(text)) < 0;
    close(file);
    return failed;
}

static void map_user(void)
{
    char line[64];
    check(put("/proc/self/setgroups", "deny") && errno != ENOENT, "setgroups"); /* gVisor of 2024 has no such file */
    snprintf(line, sizeof line, "%d %d 1", confinement.uid, confinement.uid);
    check(put("/proc/self/uid_map", line), "uid_map");
    snprintf(line, sizeof line, "%d %d 1", confinement.gid, confinement.gid);
    check(put("/proc/self/gid_map", line), "gid_map");
}

static void limit(int which, rlim_t soft, rlim_t hard)
{
    struct rlimit both = {soft, hard};
    check(setrlimit(which, &both), "setrlimit");
}

static void enter(const struct job *job)
{
    char options[96];
    check(setsid() < 0, "setsid");
    map_user();
    check(unshare(CLONE_NEWNS), "unshare");
    snprintf(options, sizeof options, "size=%lld,mode=755%s", (long long)job->disk_bytes,
             confinement.inodes ? ",nr_inodes=16384" : "");
    check(mount("tmpfs", "/box", "tmpfs", MS_NOSUID | MS_NODEV, options), "mount /box");
    check(mkdir("/box/work", 0700) || mkdir("/box/tmp", 0700) || mkdir("/box/shm", 0700), "mkdir");
    check(mount("/box/tmp", "/tmp", NULL, MS_BIND, NULL), "mount /tmp");
    check(mount("/box/shm", "/dev/shm", NULL, MS_BIND, NULL), "mount /dev/shm");
    check(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "mount /proc");
    /* Containers share their terminals; the gateway's own bundle has none. */
    if (confinement.terminals)
        check(mount("tmpfs", "/dev/pts", "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=4096"), "mount /dev/pts");
    check(chdir("/box/work"), "chdir");
    limit(RLIMIT_FSIZE, job->disk_bytes, job->disk_bytes);
    limit(RLIMIT_NPROC, job->processes < job->threads ? job->processes : job->threads, job->threads);
    rlim_t memory = confinement.base_memory + job->memory_bytes;
    /* The difference is for describing a MemoryError and for thread stacks. */
    limit(RLIMIT_AS, memory, memory + ROOM + job->threads * confinement.stack);
    limit(RLIMIT_CPU, job->cpu_seconds, job->cpu_seconds + 1); /* SIGXCPU tells the cause; SIGKILL if it is ignored */
    uint32_t header[2] = {0x20080522, 0}, none[6] = {0};
    check(syscall(SYS_capset, header, none), "capset");
    /*
     * Now /proc/self/mem does not belong to the program. The audit hook knows this file only by its name, and a process
     * that the program has started can make a link with another name.
     */
    check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable");
    check(prctl(PR_SET_SECCOMP, 2, &confinement.filter, 0, 0), "seccomp");
}

/* ---- The fork server ---- */

/* heap.c, if it is preloaded. */
extern void heap_seal(void) __attribute__((weak));
#ifdef PRACTICE
extern void heap_prepare(int), heap_watch(void);
extern size_t heap_written(uint64_t *, size_t);

/* Answer a request for the profile of what executions have written to. */
static void tell_written(int control)
{
    static uint64_t found[1 << 13]; /* fits into a packet */
    size_t length = heap_written(found, sizeof found / sizeof *found);
    check(send(control, found, length * sizeof *found, MSG_NOSIGNAL) < 0, "send");
}

/*
 * Record what this process writes to from now on. A look-up of an attribute that is not in the interpreter's cache
 * writes to the type's resolution order. What is in the cache depends on addresses, so all of them count.
 */
static void watch_memory(void)
{
    static const char orders[] =
        "found, types = [], [object]\n"
        "while types:\n"
        "    found.append((each := types.pop()).__mro__)\n"
        "    types += type.__subclasses__(each)\n";
    PyObject *names = PyModule_GetDict(PyImport_AddModule("__main__"));
    check(PyRun_SimpleString(orders), "types");
    PyObject *found = PyDict_GetItemString(names, "found");
    intptr_t count = PyList_Size(found);
    heap_watch();
    for (intptr_t i = 0; i < count; i++) {
        PyObject *order = PyList_GetItem(found, i);
        Py_IncRef(order);
        Py_DecRef(order);
    }
}
#endif

enum { PAYLOAD = 3, CHANNEL, DESCRIPTORS, SOON_MILLISECONDS = 30 };

struct event {
    int32_t kind, pid, status, zero;
    int64_t cpu_microseconds, peak_bytes;
};

/*
 * One clone costs as much as one fork; `unshare` and a second fork cost twice that. The child is process 1 of its
 * namespace, so everything it started ends with it. The mount namespace is created later by the child, because gVisor
 * refuses mounts in one created by the same clone as the user namespace. As in glibc's fork, the kernel gets the
 * address of the thread id: otherwise `raise` and `abort` would signal a thread that is not in the namespace.
 */
static pid_t fork_into_namespaces(void)
{
    unsigned long flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | SIGCHLD;
    int *thread = (int *)pthread_self(), *id = NULL, own = syscall(SYS_gettid);
    for (int i = 0; i < 256 && !id; i++)
        if (thread[i] == own)
            id = thread + i;
    if (id)
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
#if defined(__x86_64__)
    return syscall(SYS_clone, flags, NULL, NULL, id, NULL);
#else
    return syscall(SYS_clone, flags, NULL, NULL, NULL, id);
#endif
}

static int supports_inode_limit(void)
{
    int status = 1;
    pid_t pid = fork_into_namespaces();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY), 2);
        map_user();
        check(unshare(CLONE_NEWNS), "unshare");
        check(mount("tmpfs", "/box", "tmpfs", 0, "size=65536,nr_inodes=16"), "mount");
        _exit(0);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static size_t stack_size(void)
{
    pthread_attr_t attributes;
    size_t size = 0, guard = 0;
    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, &size);
    pthread_attr_getguardsize(&attributes, &guard);
    return size + guard;
}

/* Address space of this process in bytes. */
static long long warm_memory(void)
{
    char text[64] = "";
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    check(file < 0 || read(file, text, sizeof text - 1) <= 0, "statm");
    close(file);
    return strtoll(text, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static int tell(int control, int32_t kind, pid_t pid, int status, const struct rusage *usage)
{
    struct event event = {kind, pid, status, 0, 0, 0};
    if (usage) {
        event.cpu_microseconds = (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000LL
            + usage->ru_utime.tv_usec + usage->ru_stime.tv_usec;
        event.peak_bytes = usage->ru_maxrss * 1024LL;
    }
    return send(control, &event, sizeof event, MSG_NOSIGNAL) != sizeof event;
}

static void child(const struct job *job)
{
    PyObject *code, *tests, *names;
    int total;
    memcpy(witness.tokens, job->tokens, sizeof witness.tokens);
    witness.channel = fcntl(CHANNEL, F_DUPFD_CLOEXEC, job->channel);
    check(witness.channel < 0, "dup");
    close(CHANNEL);
#ifdef PRACTICE
    watch_memory();
#else
    enter(job);
#endif
    PyOS_AfterFork_Child();
    PyObject *prepared = PyObject_CallFunction(prepare, "i", PAYLOAD);
    if (prepared == NONE)
        _exit(1);
    if (!prepared || !PyArg_ParseTuple(prepared, "OOOiO", &code, &tests, &names, &total, &verify)) {
        PyErr_Print();
        _exit(70);
    }
    int status = run(code, tests, names, total);
    PyObject_CallFunction(finish, NULL);
    _exit(status);
}

/*
 * The lowest numbers are free, so the descriptors of a job arrive where the program has them: standard input, output
 * and error, the payload, and the channel. Each system call costs some twenty microseconds in gVisor.
 */
static int receive(int control, struct job *job)
{
    char space[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    int numbers[DESCRIPTORS];
    struct iovec part = {job, sizeof *job};
    struct msghdr header = {NULL, 0, &part, 1, space, sizeof space, 0};
    ssize_t length = recvmsg(control, &header, 0);
    struct cmsghdr *given = length > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    if (given) {
        memcpy(numbers, CMSG_DATA(given), sizeof numbers);
        for (int i = 0; i < DESCRIPTORS; i++)
            check(numbers[i] != i, "descriptors");
    }
    return length > 0;
}

/* Move a descriptor out of the way of a job's. */
static int moved(int descriptor)
{
    int above = fcntl(descriptor, F_DUPFD_CLOEXEC, DESCRIPTORS);
    check(above < 0, "dup");
    close(descriptor);
    return above;
}

/* Serve until the supervisor closes its end. */
static void loop(int control)
{
    sigset_t signals;
    pid_t pid = 0;
    int announced = 1, status;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int ended = moved(signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
    for (int i = 0; i < DESCRIPTORS; i++)
        close(i);
    struct pollfd polls[2] = {{control, POLLIN, 0}, {ended, POLLIN, 0}};
    for (;;) {
        int ready = poll(polls, 2, announced ? -1 : SOON_MILLISECONDS);
        /* Only now, because most programs have ended already and each message costs the supervisor time. */
        if (ready == 0) {
            announced = 1;
            if (tell(control, 'r', pid, 0, NULL))
                return;
        }
        if (ready <= 0)
            continue;
        if (polls[1].revents) {
            struct signalfd_siginfo info;
            struct rusage usage;
            while (read(ended, &info, sizeof info) > 0)
                ;
            if (pid && wait4(pid, &status, WNOHANG, &usage) == pid) {
                pid = 0;
                announced = 1;
                if (tell(control, 'e', 0, status, &usage))
                    return;
            }
        }
        if (!polls[0].revents)
            continue;
        struct job job;
        int open = receive(control, &job);
        if (pid && (!open || job.kind == 'k'))
            kill(pid, SIGKILL);
        if (!open)
            return;
#ifdef PRACTICE
        if (job.kind == 'p')
            tell_written(control);
#endif
        if (job.kind != 'r')
            continue;
#ifdef PRACTICE
        pid = fork();
#else
        pid = fork_into_namespaces();
#endif
        if (pid == 0) {
            close(ended);
            close(control);
            sigprocmask(SIG_UNBLOCK, &signals, NULL);
            child(&job);
        }
        for (int i = 0; i < DESCRIPTORS; i++)
            close(i);
        if (pid < 0)
            return;
        announced = 0;
    }
}

static PyObject *serve(PyObject *self, PyObject *arguments)
{
    int control;
    PyObject *filter, *folder;
    intptr_t size;
    if (witness.begun)
        return nothing();
    if (!PyArg_ParseTuple(arguments, "iOOOOOO", &control, &filter, &prepare, &describe, &finish, &unittests, &folder)
        || PyBytes_AsStringAndSize(filter, &confinement.filter.instructions, &size) || PySys_AddAuditHook(hook, NULL))
        return NULL;
    for (int i = 3; i < 1024; i++)
        if (i != control)
            close(i);
    snprintf(extensions, sizeof extensions, "%s/", text_of(folder));
    confinement.filter.length = size / 8;
    confinement.uid = getuid();
    confinement.gid = getgid();
    confinement.inodes = supports_inode_limit();
    confinement.stack = stack_size();
    /* The calling frame will be below the program's, so its globals must be empty. */
    PyDict_Clear(PyModule_GetDict(PyImport_AddModule("__main__")));
    PyOS_BeforeFork();
    confinement.terminals = !access("/dev/pts", F_OK);
    /* The same for all programs, so their processes inherit it. */
    limit(RLIMIT_CORE, 0, 0);
    limit(RLIMIT_NOFILE, 256, 256);
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    if (heap_seal)
        heap_seal();
    confinement.base_memory = warm_memory();
#ifdef PRACTICE
    static char log[4096];
    klogctl(3, log, sizeof log - 1);
    heap_prepare(strstr(log, "gVisor") != NULL);
#endif
    if (!tell(control, 'w', 0, 0, NULL))
        loop(moved(control));
    _exit(0);
}

static PyMethodDef methods[] = {
    {"serve", serve, METH_VARARGS, "Serve the supervisor; does not return."},
    {"report", report_early, METH_VARARGS, "Report why nothing will run."},
    {"watch", watch, METH_VARARGS, "Register an instruction of the tests that calls a witness."},
    {"expect", expect, METH_VARARGS, "Set the classes whose methods assert, and what to say if no assertion is executed."},
    {"main", (PyCFunction)(void (*)(void))unittest_main, METH_VARARGS | METH_KEYWORDS,
     "Run the test methods of the tests."},
    {"assertion", assertion, METH_O, "Count an executed assertion of the tests; True: it held."},
    {"stand_in", stand_in, METH_NOARGS, "Replace functions of the interpreter."},
    {"checked", (PyCFunction)(void (*)(void))checked, METH_VARARGS | METH_KEYWORDS, "Call an assertion of the tests."},
    {"ran", (PyCFunction)(void (*)(void))ran, METH_VARARGS | METH_KEYWORDS, "Call a function that may run test cases."},
    {NULL, NULL, 0, NULL},
};

PyObject *PyInit__native(void)
{
    definition.references = 1;
    definition.name = "codealign.runner._native";
    definition.size = -1;
    definition.methods = methods;
    return PyModule_Create2(&definition, API_VERSION);
}
