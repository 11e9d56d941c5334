// Stops one thread of another process for as many milliseconds as it is told; the others go on.
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count != 3) return 2;
    pid_t thread = atoi(arguments[1]);
    if (ptrace(PTRACE_SEIZE, thread, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, thread, 0, 0) < 0) {
        perror("ptrace");
        return 1;
    }
    waitpid(thread, NULL, __WALL);
    puts("frozen");
    fflush(stdout);
    usleep((useconds_t)atoi(arguments[2]) * 1000);
    ptrace(PTRACE_DETACH, thread, 0, 0);
    return 0;
}
