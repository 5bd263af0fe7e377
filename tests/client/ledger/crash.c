/* Ends the process at its n-th call that changes a file. Modes: KILL before the call; TORN after
   half of a write; POWER before the call, and whatever was not synced to the disk is undone, as the
   power's failure may do. For LD_PRELOAD; tests/client/ledger/test_ledger_crash.py says when. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { KILL, TORN, POWER };

static long calls, last;
static int mode;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t real_pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return real(fd, data, size, at);
}
static int real_truncate(int fd, off_t size) { REAL(int, "ftruncate64", int, off_t); return real(fd, size); }
static int real_rename(const char *from, const char *to) { REAL(int, "rename", const char *, const char *); return real(from, to); }

/* What a power cut takes back: bytes of a file, or a name. */
struct change {
    struct change *before;
    dev_t device; ino_t inode;   /* of the file, or of the folder that holds the name */
    int fd;                      /* of the file; -1 for a name */
    off_t at, size;              /* where the old bytes belong, and how long the file was */
    size_t length; char *bytes;
    char *from, *to, *kept;      /* of a name: `to` was `kept` before */
};
static struct change *newest;

static int watched(int fd, struct stat *is) {
    char link[64], name[PATH_MAX];
    if (mode != POWER || fstat(fd, is) || !S_ISREG(is->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    /* What the test itself was told, and memory that processes share, are no files on a disk. */
    return !strstr(name, "reported") && !strstr(name, "-shm");
}

static void remember(int fd, off_t at, size_t length) {
    struct stat is;
    if (!watched(fd, &is)) return;
    struct change *one = calloc(1, sizeof *one);
    one->device = is.st_dev; one->inode = is.st_ino; one->size = is.st_size; one->at = at;
    one->fd = dup(fd);
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int source = open(link, O_RDONLY);
    if (source >= 0 && at < is.st_size) {
        one->length = length < (size_t)(is.st_size - at) ? length : (size_t)(is.st_size - at);
        one->bytes = malloc(one->length);
        if (pread(source, one->bytes, one->length, at) != (ssize_t)one->length) abort();
    }
    if (source >= 0) close(source);
    one->before = newest; newest = one;
}

static void remember_name(const char *from, const char *to) {
    struct stat is;
    char folder[PATH_MAX], kept[PATH_MAX];
    if (mode != POWER) return;
    snprintf(folder, sizeof folder, "%s", to);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0; else strcpy(folder, ".");
    if (stat(folder, &is)) return;
    struct change *one = calloc(1, sizeof *one);
    one->device = is.st_dev; one->inode = is.st_ino; one->fd = -1;
    one->from = strdup(from); one->to = strdup(to);
    snprintf(kept, sizeof kept, "%s.%ld.kept", to, calls);
    if (!link(to, kept)) one->kept = strdup(kept);
    one->before = newest; newest = one;
}

static void synced(int fd) {
    struct stat is;
    if (fstat(fd, &is)) return;
    for (struct change **place = &newest; *place;) {
        struct change *one = *place;
        if (one->device == is.st_dev && one->inode == is.st_ino) *place = one->before;
        else place = &one->before;
    }
}

static void undo(void) {
    for (struct change *one = newest; one; one = one->before) {
        if (one->fd < 0) {
            real_rename(one->to, one->from);
            if (one->kept) real_rename(one->kept, one->to);
            continue;
        }
        if (one->length && real_pwrite(one->fd, one->bytes, one->length, one->at) < 0) abort();
        if (real_truncate(one->fd, one->size)) abort();
    }
}

void crash_at(long call, int how) { calls = 0; last = call; mode = how; newest = NULL; }
long crash_calls(void) { return calls; }

static int due(void) { return ++calls == last; }
static void end(void) { if (mode == POWER) undo(); _exit(9); }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (fd > 2 && due()) { if (mode == TORN) real(fd, data, size / 2); end(); }
    struct stat is;
    int append = fcntl(fd, F_GETFL) & O_APPEND;
    if (fd > 2 && !fstat(fd, &is)) remember(fd, append ? is.st_size : lseek(fd, 0, SEEK_CUR), size);
    return real(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    if (due()) { if (mode == TORN) real_pwrite(fd, data, size / 2, at); end(); }
    remember(fd, at, size);
    return real_pwrite(fd, data, size, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
int fsync(int fd) { REAL(int, "fsync", int); if (due()) end(); synced(fd); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); if (due()) end(); synced(fd); return real(fd); }
int ftruncate64(int fd, off64_t size) {
    if (due()) end();
    struct stat is;
    if (!fstat(fd, &is) && size < is.st_size) remember(fd, size, is.st_size - size);
    else remember(fd, size, 0);
    return real_truncate(fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int rename(const char *from, const char *to) {
    if (due()) end();
    remember_name(from, to);
    return real_rename(from, to);
}
int unlink(const char *name) { REAL(int, "unlink", const char *); if (due()) end(); return real(name); }
