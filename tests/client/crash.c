/* Ends the process at its n-th call that changes a file: before it, or after half of a write.
   For LD_PRELOAD; tests/client/test_ledger_crash.py says when. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static long calls, last;
static int torn;

void crash_at(long call, int half) { calls = 0; last = call; torn = half; }
long crash_calls(void) { return calls; }

static int due(void) { return ++calls == last; }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (fd > 2 && due()) { if (torn) real(fd, data, size / 2); _exit(9); }
    return real(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    if (due()) { if (torn) real(fd, data, size / 2, at); _exit(9); }
    return real(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
int fsync(int fd) { REAL(int, "fsync", int); if (due()) _exit(9); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); if (due()) _exit(9); return real(fd); }
int ftruncate64(int fd, off64_t size) { REAL(int, "ftruncate64", int, off64_t); if (due()) _exit(9); return real(fd, size); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int rename(const char *from, const char *to) { REAL(int, "rename", const char *, const char *); if (due()) _exit(9); return real(from, to); }
int unlink(const char *name) { REAL(int, "unlink", const char *); if (due()) _exit(9); return real(name); }
