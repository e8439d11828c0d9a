// Preloaded into a worker: each step of reading a model ahead takes SLOW_READ_US microseconds.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t slowly(const char *name, int fd, const struct iovec *parts, int count, off_t at, int flags) {
    ssize_t (*real)(int, const struct iovec *, int, off_t, int) = dlsym(RTLD_NEXT, name);
    const char *wait = getenv("SLOW_READ_US");
    if (flags & RWF_NOWAIT) {
        errno = EAGAIN;  // nothing is in memory yet
        return -1;
    }
    usleep(wait ? (useconds_t)atoi(wait) : 0);
    return real(fd, parts, count, at, flags);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return slowly("preadv2", fd, parts, count, at, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return slowly("preadv64v2", fd, parts, count, at, flags);
}
