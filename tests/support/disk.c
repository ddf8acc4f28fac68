/* A disk that can be told how to behave: put before the C library with LD_PRELOAD. See disk.py.

   It concerns itself with files whose path begins with DISK_FOLDER, but for SQLite's shared memory (-shm), which is
   no matter of the disk, and does three things:

       DISK_SYNC_US=4000            a sync takes that much longer
       disk_fails(at, many, error)  of the changes from now on, the `at`-th and `many` in a row fail with that errno
       DISK_JOURNAL=path            every change is written there, in the order it was made, with its bytes

   An entry of the journal: one letter (W write, T truncate, S sync, U unlink), the length of the path (16 bits), the
   offset or size (64), the number of bytes (32), then path and bytes; all little-endian. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static long calls, fail_at, fail_many;
static int fail_with;
static int journal = -1;

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))
typedef ssize_t (*Pwrite)(int, const void *, size_t, off64_t);
typedef ssize_t (*Write)(int, const void *, size_t);
typedef int (*Truncate)(int, off64_t);
typedef int (*Sync)(int);
typedef int (*Unlink)(const char *);

static long setting(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int concerns(const char *path) {
    const char *folder = getenv("DISK_FOLDER");
    size_t length = strlen(path);
    if (folder == NULL || strncmp(path, folder, strlen(folder)) != 0) return 0;
    return length < 4 || strcmp(path + length - 4, "-shm") != 0;
}

static int path_of(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    path[length > 0 ? length : 0] = 0;
    return length > 0 && concerns(path);
}

void disk_fails(long at, long many, int error) {
    pthread_mutex_lock(&turn);
    calls = 0;
    fail_at = at;
    fail_many = many;
    fail_with = error;
    pthread_mutex_unlock(&turn);
}

/* How many changes there were since disk_fails. */
long disk_calls(void) { return calls; }

/* Whether this change is one that fails. */
static int fails(void) {
    pthread_mutex_lock(&turn);
    calls++;
    int is_one = fail_at > 0 && calls >= fail_at && calls < fail_at + fail_many;
    pthread_mutex_unlock(&turn);
    if (is_one) errno = fail_with;
    return is_one;
}

static void note(char kind, const char *path, uint64_t where, const void *bytes, uint32_t size) {
    const char *name = getenv("DISK_JOURNAL");
    if (name == NULL) return;
    Write real = REAL("write", Write);
    if (journal < 0) journal = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    uint16_t length = strlen(path);
    unsigned char head[15] = {kind};
    memcpy(head + 1, &length, 2);
    memcpy(head + 3, &where, 8);
    memcpy(head + 11, &size, 4);
    if (real(journal, head, 15) != 15 || real(journal, path, length) != length ||
        (size > 0 && real(journal, bytes, size) != (ssize_t)size))
        abort();
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t where) {
    char path[4096];
    Pwrite real = REAL("pwrite64", Pwrite);
    if (!path_of(file, path, sizeof path)) return real(file, bytes, size, where);
    if (fails()) return -1;
    pthread_mutex_lock(&turn);
    ssize_t done = real(file, bytes, size, where);
    if (done > 0) note('W', path, where, bytes, done);
    pthread_mutex_unlock(&turn);
    return done;
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t where) { return pwrite64(file, bytes, size, where); }

ssize_t write(int file, const void *bytes, size_t size) {
    char path[4096];
    Write real = REAL("write", Write);
    if (!path_of(file, path, sizeof path)) return real(file, bytes, size);
    if (fails()) return -1;
    pthread_mutex_lock(&turn);
    off64_t where = lseek64(file, 0, SEEK_CUR);
    ssize_t done = real(file, bytes, size);
    if (done > 0) note('W', path, where, bytes, done);
    pthread_mutex_unlock(&turn);
    return done;
}

int ftruncate64(int file, off64_t size) {
    char path[4096];
    Truncate real = REAL("ftruncate64", Truncate);
    if (!path_of(file, path, sizeof path)) return real(file, size);
    if (fails()) return -1;
    pthread_mutex_lock(&turn);
    int done = real(file, size);
    if (done == 0) note('T', path, size, NULL, 0);
    pthread_mutex_unlock(&turn);
    return done;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int sync_with(const char *name, int file) {
    char path[4096];
    Sync real = REAL(name, Sync);
    if (!path_of(file, path, sizeof path)) return real(file);
    if (fails()) return -1;
    if (setting("DISK_SYNC_US") > 0) usleep(setting("DISK_SYNC_US"));
    int done = real(file);
    if (done == 0) {
        pthread_mutex_lock(&turn);
        note('S', path, 0, NULL, 0);
        pthread_mutex_unlock(&turn);
    }
    return done;
}

int fsync(int file) { return sync_with("fsync", file); }
int fdatasync(int file) { return sync_with("fdatasync", file); }

int unlink(const char *path) {
    Unlink real = REAL("unlink", Unlink);
    if (!concerns(path)) return real(path);
    if (fails()) return -1;
    pthread_mutex_lock(&turn);
    int done = real(path);
    if (done == 0) note('U', path, 0, NULL, 0);
    pthread_mutex_unlock(&turn);
    return done;
}
