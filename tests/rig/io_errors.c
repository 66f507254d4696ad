/* Lets system calls on files whose path holds FAIL_ON fail with EIO, as a dying disk does: those named in the file
   FAIL_FILE (write, sync, read); with the word quota there, writing fails with EDQUOT; with slow, each write takes 200 ms;
   with names, a directory cannot be synced once such a file was removed; with folders, none can; with unlink, such a file cannot be
   removed. Loaded in front of the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_switched_on(const char *what) {
    const char *file = getenv("FAIL_FILE");
    char words[256];
    int switches;
    ssize_t length;
    if (!file) return 0;
    switches = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDONLY, 0);
    if (switches < 0) return 0;
    length = syscall(SYS_read, switches, words, sizeof words - 1);
    syscall(SYS_close, switches);
    words[length > 0 ? length : 0] = 0;
    return strstr(words, what) != NULL;
}

static int is_on(int fd, const char *what) {
    const char *on = getenv("FAIL_ON");
    char link[64], path[4096];
    int saved = errno, result = 0;
    ssize_t length;
    if (!on || !is_switched_on(what)) goto out;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    result = strstr(path, on) != NULL;
out:
    errno = result ? EIO : saved;
    return result;
}

static int is_removed;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
    if (is_on(fd, "slow")) usleep(200000);
    if (is_on(fd, "quota")) {
        errno = EDQUOT;
        return -1;
    }
    return is_on(fd, "write") ? -1 : NEXT(write)(fd, bytes, count);
}
ssize_t read(int fd, void *bytes, size_t count) { return is_on(fd, "read") ? -1 : NEXT(read)(fd, bytes, count); }
int fsync(int fd) {
    struct stat found;
    int is_failing = is_switched_on("folders") || (is_removed && is_switched_on("names"));
    if (is_failing && !fstat(fd, &found) && S_ISDIR(found.st_mode)) {
        errno = EIO;
        return -1;
    }
    return is_on(fd, "sync") ? -1 : NEXT(fsync)(fd);
}
int fdatasync(int fd) { return is_on(fd, "sync") ? -1 : NEXT(fdatasync)(fd); }
int unlink(const char *path) {
    const char *on = getenv("FAIL_ON");
    size_t length = strlen(path), end = on ? strlen(on) : 0;
    if (on && length >= end && !strcmp(path + length - end, on)) {
        if (is_switched_on("unlink")) {
            errno = EIO;
            return -1;
        }
        is_removed = 1;
    }
    return NEXT(unlink)(path);
}
