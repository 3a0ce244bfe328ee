// Regular files take a few bytes at a time, and every third call is interrupted.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_interrupted(int fd) {
    static _Thread_local unsigned calls;
    struct stat found;
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode) || ++calls % 3 != 0) return 0;
    errno = EINTR;
    return 1;
}

static size_t few(int fd, size_t bytes) {
    struct stat found;
    int is_file = fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
    return is_file && bytes > 1 ? (bytes > 2000 ? 1999 : bytes / 2) : bytes;
}

ssize_t write(int fd, const void *from, size_t bytes) {
    return is_interrupted(fd) ? -1 : syscall(SYS_write, fd, from, few(fd, bytes));
}

ssize_t pwrite64(int fd, const void *from, size_t bytes, off_t at) {
    return is_interrupted(fd) ? -1 : syscall(SYS_pwrite64, fd, from, few(fd, bytes), at);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    struct stat found;
    if (is_interrupted(fd)) return -1;
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) return syscall(SYS_writev, fd, pieces, count);
    for (int at = 0; at < count; at++)
        if (pieces[at].iov_len > 0) return write(fd, pieces[at].iov_base, pieces[at].iov_len);
    return 0;
}
