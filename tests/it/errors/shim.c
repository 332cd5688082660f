/* Makes file operations fail: loaded into the real program by LD_PRELOAD.
 *
 * Calls on files below the folder LARDER_FAULTS_BELOW (seen from the working folder) are counted while the
 * control file is armed, and the one whose turn it is fails as the control file says. What was written and
 * not synced is remembered there too, so that the test can take it back as a loss of power would: a sync
 * that is made to fail leaves its bytes readable and lost, which is what Linux does. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES_MAX = 4096, HIT_LEN = 512 };
enum { DIRTY = 1, LOST = 2 };
enum {
    OPEN_READ = 1, OPEN_WRITE = 2, CREATE = 4, WRITE = 8, SYNC = 16, RENAME = 32, TRUNCATE = 64,
    UNLINK = 128, MKDIR = 256, LINK = 512,
};

struct page { uint64_t inode, number, state, unused; };

struct control {
    uint64_t kinds;      /* which calls count; 0: none */
    uint64_t fail_at;    /* the call that fails, from 1 */
    uint64_t count;      /* calls that counted */
    uint64_t go_on;      /* whether those behind it fail too */
    uint64_t error;      /* errno */
    uint64_t fired;      /* calls that failed */
    uint64_t overflow;   /* more pages were written than there is room for */
    uint64_t unused;
    char hit[HIT_LEN];   /* the first call that failed */
    char padding[PAGE - HIT_LEN - 64];
    struct page pages[PAGES_MAX];
    unsigned char before[PAGES_MAX][PAGE];
};

static struct control *control;
static char below[PATH_MAX];
static size_t below_len;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int real_open(const char *path, int flags, mode_t mode) {
    REAL(int, "open64", const char *, int, ...);
    return real(path, flags, mode);
}

static ssize_t real_pwrite(int fd, const void *bytes, size_t length, off_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return real(fd, bytes, length, at);
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("LARDER_FAULTS_BELOW"), *path = getenv("LARDER_FAULTS_CONTROL");
    char here[PATH_MAX];
    if (!folder || !path || !getcwd(here, sizeof here)) return;
    below_len = (size_t)snprintf(below, sizeof below, "%s/%s", here, folder);
    int fd = real_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) control = map;
}

static int is_ours(const char *path) {
    return control && path && !strncmp(path, below, below_len)
        && (path[below_len] == '/' || path[below_len] == 0);
}

static int path_of(int fd, char *path) {
    char link[32];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* Whether this call is to fail; errno is set then. The lock is held. */
static int fails(unsigned kind, const char *call, const char *path) {
    if (!(control->kinds & kind)) return 0;
    uint64_t number = ++control->count;
    if (!control->fail_at || number < control->fail_at
        || (number > control->fail_at && !control->go_on)) return 0;
    if (!control->fired++)
        snprintf(control->hit, HIT_LEN, "%s %s", call, path + below_len);
    errno = (int)control->error;
    return 1;
}

static int fails_at(unsigned kind, const char *call, const char *path) {
    pthread_mutex_lock(&lock);
    int failed = fails(kind, call, path);
    pthread_mutex_unlock(&lock);
    return failed;
}

/* Forgets what is remembered of a file from a page on. */
static void forget(uint64_t inode, uint64_t from) {
    for (int i = 0; i < PAGES_MAX; i++)
        if (control->pages[i].inode == inode && control->pages[i].number >= from)
            memset(&control->pages[i], 0, sizeof(struct page));
}

static void forget_path(const char *path) {
    struct stat found;
    if (!lstat(path, &found) && found.st_nlink == 1) forget(found.st_ino, 0);
}

static void remember_page(int fd, uint64_t inode, uint64_t number) {
    int room = -1;
    for (int i = 0; i < PAGES_MAX; i++) {
        struct page *page = &control->pages[i];
        if (page->inode == inode && page->number == number) {
            page->state = DIRTY;
            return;
        }
        if (!page->inode && room < 0) room = i;
    }
    if (room < 0) {
        control->overflow = 1;
        return;
    }
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int reading = real_open(link, O_RDONLY | O_CLOEXEC, 0);
    memset(control->before[room], 0, PAGE);
    if (reading >= 0) {
        if (pread(reading, control->before[room], PAGE, (off_t)(number * PAGE)) < 0) control->overflow = 1;
        close(reading);
    }
    control->pages[room] = (struct page){ inode, number, DIRTY, 0 };
}

static void remember(int fd, off_t at, size_t length) {
    struct stat found;
    if (!length || fstat(fd, &found) || !S_ISREG(found.st_mode)) return;
    for (uint64_t page = (uint64_t)at / PAGE; page <= ((uint64_t)at + length - 1) / PAGE; page++)
        remember_page(fd, found.st_ino, page);
}

static off_t place_of(int fd) {
    struct stat found;
    if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &found) ? 0 : found.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

/* A write that fails has written a half, as one does that meets the end of the disk. */
static ssize_t write_at(int fd, const void *bytes, size_t length, off_t at, const char *call,
                        const char *path, int *failed) {
    pthread_mutex_lock(&lock);
    remember(fd, at, length);
    *failed = fails(WRITE, call, path);
    if (*failed) {
        int error = errno;
        ssize_t half = error == EROFS || error == EACCES ? 0 : real_pwrite(fd, bytes, length / 2, at);
        (void)half;
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    char path[PATH_MAX];
    int failed;
    if (path_of(fd, path)) {
        write_at(fd, bytes, length, at, "pwrite", path, &failed);
        if (failed) return -1;
    }
    return real_pwrite(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[PATH_MAX];
    int failed;
    if (path_of(fd, path)) {
        write_at(fd, bytes, length, place_of(fd), "write", path, &failed);
        if (failed) return -1;
    }
    return real(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    char path[PATH_MAX];
    if (path_of(fd, path)) {
        size_t length = 0;
        for (int i = 0; i < count; i++) length += parts[i].iov_len;
        pthread_mutex_lock(&lock);
        remember(fd, place_of(fd), length);
        int failed = fails(WRITE, "writev", path);
        pthread_mutex_unlock(&lock);
        if (failed) return -1;
    }
    return real(fd, parts, count);
}

static int synced(int fd, const char *call, int (*real)(int)) {
    char path[PATH_MAX];
    struct stat found;
    if (!path_of(fd, path)) return real(fd);
    pthread_mutex_lock(&lock);
    int failed = fails(SYNC, call, path), error = errno;
    int result = failed ? -1 : real(fd);
    if (!fstat(fd, &found))
        for (int i = 0; i < PAGES_MAX; i++) {
            struct page *page = &control->pages[i];
            if (page->inode != found.st_ino || page->state != DIRTY) continue;
            if (result) page->state = LOST;
            else memset(page, 0, sizeof *page);
        }
    if (failed) errno = error;
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return synced(fd, "fsync", real);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return synced(fd, "fdatasync", real);
}

static int open_at(const char *path, int flags, mode_t mode) {
    if (!is_ours(path)) return real_open(path, flags, mode);
    int writes = (flags & O_ACCMODE) != O_RDONLY, is_temporary = (flags & O_TMPFILE) == O_TMPFILE;
    int creates = is_temporary || ((flags & O_CREAT) && access(path, F_OK));
    unsigned kind = creates ? CREATE : writes ? OPEN_WRITE : OPEN_READ;
    if (fails_at(kind, creates ? "create" : writes ? "open for writing" : "open", path)) return -1;
    if (flags & O_TRUNC) {
        struct stat found;
        pthread_mutex_lock(&lock);
        if (!stat(path, &found)) forget(found.st_ino, 0);
        pthread_mutex_unlock(&lock);
    }
    return real_open(path, flags, mode);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open64(const char *path, int flags, ...) { MODE(flags) return open_at(path, flags, mode); }
int open(const char *path, int flags, ...) { MODE(flags) return open_at(path, flags, mode); }

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags)
    REAL(int, "openat64", int, const char *, int, ...);
    return path[0] == '/' ? open_at(path, flags, mode) : real(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags)
    return openat(folder, path, flags, mode);
}

int ftruncate64(int fd, off_t length) {
    REAL(int, "ftruncate64", int, off_t);
    char path[PATH_MAX];
    struct stat found;
    if (path_of(fd, path)) {
        if (fails_at(TRUNCATE, "ftruncate", path)) return -1;
        pthread_mutex_lock(&lock);
        if (!fstat(fd, &found)) forget(found.st_ino, ((uint64_t)length + PAGE - 1) / PAGE);
        pthread_mutex_unlock(&lock);
    }
    return real(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fallocate64(int fd, int mode, off_t at, off_t length) {
    REAL(int, "fallocate64", int, int, off_t, off_t);
    char path[PATH_MAX];
    if (path_of(fd, path) && fails_at(TRUNCATE, "fallocate", path)) return -1;
    return real(fd, mode, at, length);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (is_ours(to)) {
        if (fails_at(RENAME, "rename to", to)) return -1;
        pthread_mutex_lock(&lock);
        forget_path(to);
        pthread_mutex_unlock(&lock);
    }
    return real(from, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    if (is_ours(path)) {
        if (fails_at(UNLINK, "unlink", path)) return -1;
        pthread_mutex_lock(&lock);
        forget_path(path);
        pthread_mutex_unlock(&lock);
    }
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    if (is_ours(path) && fails_at(MKDIR, "mkdir", path)) return -1;
    return real(path, mode);
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    if (is_ours(path) && fails_at(UNLINK, "rmdir", path)) return -1;
    return real(path);
}

int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    if (is_ours(to) && fails_at(LINK, "link to", to)) return -1;
    return real(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    if (is_ours(to) && fails_at(LINK, "link to", to)) return -1;
    return real(from_folder, from, to_folder, to, flags);
}
