/* Faults on the files below one folder, under every language's runtime: loaded with LD_PRELOAD, armed through ctypes.

   faults_arm(prefix, at, error, sticky, log, with_data)

   Calls that change something below `prefix` are numbered from 1 and written to `log`, one record each (struct record,
   then its two paths and, if with_data, the bytes written). Call number `at` fails with `error`; with `sticky` every
   later one does too, but a full disk (ENOSPC) still removes and flushes. at = 0: none fails. Only the process that
   armed it is watched: not its children. Copies inside the kernel are refused (ENOSYS), so that callers write bytes. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, TRUNCATE, ALLOCATE, SYNC, RENAME, MKDIR, UNLINK, RMDIR, LINK, SYMLINK };
enum { ROOM = 4096 };

struct record {
    uint32_t op, injected;
    int64_t result; /* or -errno */
    uint64_t inode;
    int64_t offset; /* of a write; a truncation's length; an open's flags */
    uint32_t path, other;
    uint64_t data;
};

static char prefix[ROOM];
static long at, count;
static int fails_with, fails_on, with_data, log_to = -1;
static pid_t armed; /* a child that vfork made shares this memory, not this number */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int below(const char *path) {
    size_t length = strlen(prefix);
    return !strncmp(path, prefix, length) && (path[length] == '/' || !path[length]);
}

static int watching(void) { return armed && armed == getpid(); }

/* The absolute path of `path` below the folder `at_fd`, links not followed. */
static const char *whole(int at_fd, const char *path, char *into) {
    if (path[0] == '/')
        return path;
    if (at_fd == AT_FDCWD) {
        if (syscall(SYS_getcwd, into, ROOM) < 0)
            return "";
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at_fd);
        ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, into, ROOM - 1);
        into[length > 0 ? length : 0] = 0;
    }
    size_t length = strlen(into);
    if (path[0])
        snprintf(into + length, ROOM - length, "/%s", path);
    return into;
}

static uint64_t inode_of(int fd) {
    struct stat found;
    return syscall(SYS_fstat, fd, &found) ? 0 : found.st_ino;
}

/* Whether the call that comes now fails. The lock is held from here to `done`. */
static int struck(int op) {
    pthread_mutex_lock(&lock);
    count++;
    int now = at && (count == at || (fails_on && count > at));
    int frees = op == SYNC || op == UNLINK || op == RMDIR;
    return now && !(count > at && fails_with == ENOSPC && frees);
}

static long done(int op, int injected, long result, uint64_t inode, int64_t offset, const char *path,
                 const char *other, const void *data, size_t size) {
    int error = injected ? fails_with : errno;
    if (log_to >= 0) {
        struct record head = {op, injected, result < 0 ? -error : result, inode, offset, strlen(path), strlen(other),
                              with_data && result > 0 ? (uint64_t)size : 0};
        struct iovec parts[] = {{&head, sizeof head},
                                {(void *)path, head.path},
                                {(void *)other, head.other},
                                {(void *)data, head.data}};
        syscall(SYS_writev, log_to, parts, 4);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

void faults_arm(const char *under, long number, int error, int sticky, const char *log, int data) {
    snprintf(prefix, sizeof prefix, "%s", under);
    at = number, count = 0, fails_with = error, fails_on = sticky, with_data = data;
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    log_to = fcntl(fd, F_DUPFD_CLOEXEC, 512);
    syscall(SYS_close, fd);
    armed = getpid();
}

long faults_count(void) { return count; }

static int opened(int at_fd, const char *path, int flags, mode_t mode) {
    char room[ROOM];
    const char *full = watching() ? whole(at_fd, path, room) : "";
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    if (!writes || !watching() || !below(full))
        return syscall(SYS_openat, at_fd, path, flags, mode);
    int fault = struck(OPEN);
    int fd = fault ? -1 : syscall(SYS_openat, at_fd, path, flags, mode);
    return done(OPEN, fault, fd, fd < 0 ? 0 : inode_of(fd), flags, full, "", "", 0);
}

#define MODE_OF(flags, last)                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list more;                                                                                                  \
        va_start(more, last);                                                                                          \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags, flags)
    return opened(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_OF(flags, flags)
    return opened(AT_FDCWD, path, flags, mode);
}
int openat(int at_fd, const char *path, int flags, ...) {
    MODE_OF(flags, flags)
    return opened(at_fd, path, flags, mode);
}
int openat64(int at_fd, const char *path, int flags, ...) {
    MODE_OF(flags, flags)
    return opened(at_fd, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* What follows has an open file; `into` is its path. */
static int on_file(int fd, char *into) { return watching() && below(whole(fd, "", into)); }

#define FILE_CALL(op, fd, call, offset, data, size)                                                                    \
    char path[ROOM];                                                                                                   \
    if (!on_file(fd, path))                                                                                            \
        return call;                                                                                                   \
    int fault = struck(op);                                                                                            \
    long result = fault ? -1 : call;                                                                                   \
    return done(op, fault, result, inode_of(fd), offset, path, "", data, size);

ssize_t write(int fd, const void *data, size_t size) {
    FILE_CALL(WRITE, fd, syscall(SYS_write, fd, data, size), syscall(SYS_lseek, fd, 0, SEEK_CUR) - result, data,
              result)
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    FILE_CALL(WRITE, fd, syscall(SYS_pwrite64, fd, data, size, offset), offset, data, result)
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return pwrite(fd, data, size, offset); }
/* Part by part: a short write is an answer that every caller has to take. */
ssize_t writev(int fd, const struct iovec *parts, int number) {
    char path[ROOM];
    if (!on_file(fd, path))
        return syscall(SYS_writev, fd, parts, number);
    for (int part = 0; part < number; part++)
        if (parts[part].iov_len)
            return write(fd, parts[part].iov_base, parts[part].iov_len);
    return 0;
}
int ftruncate(int fd, off_t length) {
    FILE_CALL(TRUNCATE, fd, syscall(SYS_ftruncate, fd, length), length, "", 0)
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
    FILE_CALL(ALLOCATE, fd, syscall(SYS_fallocate, fd, mode, offset, length), offset + length, "", 0)
}
int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }
int fsync(int fd) { FILE_CALL(SYNC, fd, syscall(SYS_fsync, fd), 0, "", 0) }
int fdatasync(int fd) { FILE_CALL(SYNC, fd, syscall(SYS_fdatasync, fd), 0, "", 0) }
ssize_t sendfile64(int out, int in, off_t *offset, size_t size) {
    char path[ROOM];
    return on_file(out, path) ? (errno = ENOSYS, -1) : syscall(SYS_sendfile, out, in, offset, size);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return sendfile64(out, in, offset, size); }
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags) {
    char path[ROOM];
    return on_file(out, path) ? (errno = ENOSYS, -1)
                              : syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

static uint64_t inode_at(int at_fd, const char *path) {
    struct stat found;
    return fstatat(at_fd, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
}

/* What follows has a path, or two. */
#define PATH_CALL(op, at_fd, path, other_at, other, call)                                                              \
    char room[ROOM], room_too[ROOM];                                                                                   \
    if (!watching())                                                                                                   \
        return call;                                                                                                   \
    const char *full = whole(at_fd, path, room), *too = *(other) ? whole(other_at, other, room_too) : "";              \
    if (!below(full) && !(*too && below(too)))                                                                         \
        return call;                                                                                                   \
    int fault = struck(op);                                                                                            \
    long result = fault ? -1 : call;                                                                                   \
    int error = errno;                                                                                                 \
    uint64_t inode = op == MKDIR && !result ? inode_at(at_fd, path) : 0;                                               \
    errno = error;                                                                                                     \
    return done(op, fault, result, inode, 0, full, too, "", 0);

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    PATH_CALL(RENAME, from_at, from, to_at, to, syscall(SYS_renameat2, from_at, from, to_at, to, flags))
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
    return renameat2(from_at, from, to_at, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int mkdirat(int at_fd, const char *path, mode_t mode) {
    PATH_CALL(MKDIR, at_fd, path, 0, "", syscall(SYS_mkdirat, at_fd, path, mode))
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
static int removed(int op, int at_fd, const char *path, int flags) {
    PATH_CALL(op, at_fd, path, 0, "", syscall(SYS_unlinkat, at_fd, path, flags))
}
int unlinkat(int at_fd, const char *path, int flags) {
    return removed(flags & AT_REMOVEDIR ? RMDIR : UNLINK, at_fd, path, flags);
}
int unlink(const char *path) { return removed(UNLINK, AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(RMDIR, AT_FDCWD, path, AT_REMOVEDIR); }
int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    PATH_CALL(LINK, from_at, from, to_at, to, syscall(SYS_linkat, from_at, from, to_at, to, flags))
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int symlinkat(const char *target, int at_fd, const char *path) {
    PATH_CALL(SYMLINK, at_fd, path, 0, "", syscall(SYS_symlinkat, target, at_fd, path))
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
