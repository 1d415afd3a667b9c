/* Makes system calls fail as file systems make them fail. FAIL="link=1 chmod=1 fsync_folder=22":
 * the call and the errno; read at every call, so a process can change it; with FAIL_ONCE for one
 * call only. Only paths that hold FAIL_UNDER are touched. FAIL="read=hang": the call never returns
 * and its thread hears no signal, as on a hard NFS mount whose server is gone; with FAIL_WHEN not
 * before that file exists. A call that hangs makes the file FAIL_WHEN.hangs. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int wait_for_ever(void) {
    const char *when = getenv("FAIL_WHEN");
    if (when && access(when, F_OK)) return 0;
    if (when) {
        char seen[PATH_MAX];
        snprintf(seen, sizeof seen, "%s.hangs", when);
        close(NEXT(open)(seen, O_CREAT | O_WRONLY, 0600));
    }
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (;;) nanosleep(&(struct timespec){.tv_sec = 1000}, NULL);
}

static int is_planned(const char *call) {
    const char *plan = getenv("FAIL");
    return plan && strstr(plan, call);
}

static int fails(const char *call, const char *path) {
    const char *under = getenv("FAIL_UNDER"), *plan = getenv("FAIL");
    if (!under || !plan || (path && !strstr(path, under))) return 0;
    char wanted[64];
    snprintf(wanted, sizeof wanted, " %s=", call);
    char padded[512];
    snprintf(padded, sizeof padded, " %s", plan);
    const char *found = strstr(padded, wanted);
    if (!found) return 0;
    if (!strncmp(found + strlen(wanted), "hang", 4)) return wait_for_ever();
    int number = atoi(found + strlen(wanted));
    if (getenv("FAIL_ONCE")) unsetenv("FAIL");
    errno = number;
    return 1;
}

static const char *path_of(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

static int exists(const char *path) {
    struct stat state;
    return lstat(path, &state) == 0;
}

static int flush_fails(int fd) {
    struct stat state;
    char path[PATH_MAX];
    const char *call = fstat(fd, &state) == 0 && S_ISDIR(state.st_mode) ? "fsync_folder" : "fsync";
    return fails(call, path_of(fd, path));
}

int fsync(int fd) { return flush_fails(fd) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return flush_fails(fd) ? -1 : NEXT(fdatasync)(fd); }

int link(const char *from, const char *to) { return fails("link", to) ? -1 : NEXT(link)(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return fails("link", to) ? -1 : NEXT(linkat)(a, from, b, to, flags);
}
int symlink(const char *from, const char *to) {
    return fails("symlink", to) ? -1 : NEXT(symlink)(from, to);
}

static int refuses_rename(const char *to) {
    return fails("rename", to) || (exists(to) && fails("rename_over", to));
}
int rename(const char *from, const char *to) {
    return refuses_rename(to) ? -1 : NEXT(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    return refuses_rename(to) ? -1 : NEXT(renameat)(a, from, b, to);
}

int chmod(const char *path, mode_t mode) {
    return fails("chmod", path) ? -1 : NEXT(chmod)(path, mode);
}
int fchmod(int fd, mode_t mode) {
    char path[PATH_MAX];
    return fails("chmod", path_of(fd, path)) ? -1 : NEXT(fchmod)(fd, mode);
}
int fchmodat(int dir, const char *path, mode_t mode, int flags) {
    return fails("chmod", path) ? -1 : NEXT(fchmodat)(dir, path, mode, flags);
}

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    return fails("write", path_of(fd, path)) ? -1 : NEXT(write)(fd, data, size);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    char path[PATH_MAX];
    if (fd >= 0 && fails("mmap", path_of(fd, path))) return MAP_FAILED;
    return NEXT(mmap)(at, size, protection, flags, fd, offset);
}

static int refuses_open(const char *path, int flags) {
    return fails("open", path) || ((flags & O_ACCMODE) != O_RDONLY && fails("open_write", path));
}
int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return refuses_open(path, flags) ? -1 : NEXT(open64)(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return refuses_open(path, flags) ? -1 : NEXT(open)(path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return refuses_open(path, flags) ? -1 : NEXT(openat)(dir, path, flags, mode);
}

static int refuses_read(int fd) {
    char path[PATH_MAX];
    return is_planned("read=") && fails("read", path_of(fd, path));
}
ssize_t read(int fd, void *data, size_t size) {
    return refuses_read(fd) ? -1 : NEXT(read)(fd, data, size);
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    return refuses_read(fd) ? -1 : NEXT(pread)(fd, data, size, offset);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
    return refuses_read(fd) ? -1 : NEXT(pread64)(fd, data, size, offset);
}

int stat(const char *path, struct stat *state) {
    return fails("stat", path) ? -1 : NEXT(stat)(path, state);
}
int stat64(const char *path, struct stat64 *state) {
    return fails("stat", path) ? -1 : NEXT(stat64)(path, state);
}
DIR *opendir(const char *path) { return fails("list", path) ? NULL : NEXT(opendir)(path); }
