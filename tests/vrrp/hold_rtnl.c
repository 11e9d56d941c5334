// Holds the kernel's lock of network configuration (RTNL) for as many seconds as it is told: asks for the list of
// addresses to be written into a page that is there only then.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096 };
static char *page;

static void *list_addresses(void *unused) {
    struct ifconf list = {.ifc_len = PAGE, .ifc_buf = page};
    int socket_fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (socket_fd < 0 || ioctl(socket_fd, SIOCGIFCONF, &list) < 0) perror("SIOCGIFCONF");
    return unused;
}

int main(int count, char **arguments) {
    int seconds = count > 1 ? atoi(arguments[1]) : 5;
    int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_range range = {.start = (unsigned long)page, .len = PAGE};
    struct uffdio_register watched = {.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) < 0 || ioctl(faults, UFFDIO_REGISTER, &watched) < 0) {
        perror("userfaultfd");
        return 1;
    }
    pthread_t thread;
    pthread_create(&thread, NULL, list_addresses, NULL);
    struct pollfd fault = {.fd = faults, .events = POLLIN};
    if (poll(&fault, 1, 5000) != 1) return 1;
    puts("held");
    fflush(stdout);
    sleep((unsigned)seconds);
    struct uffdio_zeropage zeros = {.range = range};
    ioctl(faults, UFFDIO_ZEROPAGE, &zeros);
    pthread_join(thread, NULL);
    puts("released");
    return 0;
}
