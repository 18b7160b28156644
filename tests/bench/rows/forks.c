/* The least that an execution can cost: a process that forks and one that ends, again and again. */
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(void)
{
    double seconds;
    while (scanf("%lf", &seconds) == 1) {
        double end = now() + seconds, begun;
        do {
            begun = now();
            pid_t pid = fork();
            if (pid < 0)
                return 1;
            if (pid == 0)
                _exit(0);
            waitpid(pid, NULL, 0);
            printf("%.0f ", (now() - begun) * 1e6);
        } while (now() < end);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
