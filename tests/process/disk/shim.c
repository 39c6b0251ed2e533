/* Makes system calls and allocations of a process fail or wait, by rules in a mapped file.
 *
 * FAULT_RULES names a file of 4096 bytes. The test increments the number in its first line with
 * every change; each line after it is `call path errno skip count delay_ms`:
 *   call   write, read, sync or malloc
 *   path   a part of the path of the file, `*` for any (not used by malloc)
 *   skip   how many matching calls succeed first
 *   count  how many calls are affected after that; 0 for all
 *   errno  the error of affected calls; 0 lets them succeed after the delay
 * malloc fails only in the threads that run SQLite.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define RULES 8

struct rule {
    char call[16], path[64];
    int error, skip, count, delay_ms;
    int seen;
};

static const char *shared;
static struct rule rules[RULES];
static volatile int known, malloc_rules;
static long generation = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("FAULT_RULES");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        const char *at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        shared = at == MAP_FAILED ? NULL : at;
        close(fd);
    }
    /* Exceeding a file-size limit must be an error, and not end the process. */
    signal(SIGXFSZ, SIG_IGN);
}

static void refresh(void) {
    long now = strtol(shared, NULL, 10);
    if (now == generation) return;
    pthread_mutex_lock(&lock);
    if (now != generation) {
        char text[4096];
        memcpy(text, shared, sizeof text);
        text[sizeof text - 1] = 0;
        known = 0;
        malloc_rules = 0;
        char *line = strchr(text, '\n');
        while (line && known < RULES) {
            struct rule *rule = &rules[known];
            memset(rule, 0, sizeof *rule);
            if (sscanf(line + 1, "%15s %63s %d %d %d %d", rule->call, rule->path, &rule->error,
                       &rule->skip, &rule->count, &rule->delay_ms) != 6)
                break;
            malloc_rules += strcmp(rule->call, "malloc") == 0;
            known++;
            line = strchr(line + 1, '\n');
        }
        generation = now;
    }
    pthread_mutex_unlock(&lock);
}

static int matches(const struct rule *rule, int fd) {
    char link[64], path[512];
    if (rule->path[0] == '*' || fd < 0) return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, rule->path) != NULL;
}

/* Returns the error with which the call fails, or 0 if it succeeds. */
static int verdict(const char *call, int fd) {
    if (!shared) return 0;
    refresh();
    for (int at = 0; at < known; at++) {
        struct rule *rule = &rules[at];
        if (strcmp(rule->call, call) != 0 || !matches(rule, fd)) continue;
        int seen = __sync_fetch_and_add(&rule->seen, 1);
        if (seen < rule->skip) continue;
        if (rule->count && seen >= rule->skip + rule->count) continue;
        if (rule->delay_ms) usleep((useconds_t)rule->delay_ms * 1000);
        if (rule->error) return rule->error;
    }
    return 0;
}

#define FAIL(call, fd) \
    do { \
        int error = verdict(call, fd); \
        if (error) { errno = error; return -1; } \
    } while (0)

/* Defines a function that overrides the libc function of this name and then calls it. */
#define BEFORE(result, name, call, parameters, arguments) \
    result name parameters { \
        static result (*real) parameters; \
        if (!real) real = (result (*) parameters)dlsym(RTLD_NEXT, #name); \
        FAIL(call, fd); \
        return real arguments; \
    }

BEFORE(ssize_t, write, "write", (int fd, const void *from, size_t length), (fd, from, length))
BEFORE(ssize_t, pwrite, "write", (int fd, const void *from, size_t length, off_t at),
       (fd, from, length, at))
BEFORE(ssize_t, pwrite64, "write", (int fd, const void *from, size_t length, off64_t at),
       (fd, from, length, at))
BEFORE(ssize_t, read, "read", (int fd, void *to, size_t length), (fd, to, length))
BEFORE(ssize_t, pread, "read", (int fd, void *to, size_t length, off_t at),
       (fd, to, length, at))
BEFORE(ssize_t, pread64, "read", (int fd, void *to, size_t length, off64_t at),
       (fd, to, length, at))
BEFORE(int, fsync, "sync", (int fd), (fd))
BEFORE(int, fdatasync, "sync", (int fd), (fd))

static int fails_to_allocate(void) {
    char name[17] = "";
    if (!shared) return 0;
    refresh();
    if (!malloc_rules || prctl(PR_GET_NAME, name) != 0) return 0;
    if (strncmp(name, "sqlx-sqlite", 11) != 0) return 0;
    return verdict("malloc", -1);
}

extern void *__libc_malloc(size_t);
extern void *__libc_realloc(void *, size_t);

void *malloc(size_t size) {
    return fails_to_allocate() ? NULL : __libc_malloc(size);
}

void *realloc(void *from, size_t size) {
    return fails_to_allocate() ? NULL : __libc_realloc(from, size);
}
