/*
 * A program of one task a run, for tests of a malloc that stands in for the C library's. Says "ok" at
 * the end of a task, or which expectation failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "permmalloc.h"

#define EXPECT(condition)                                                          \
    do {                                                                           \
        if (!(condition)) {                                                        \
            fprintf(stderr, "line %d: not so: %s (errno %d)\n", __LINE__, #condition, errno); \
            _exit(1);                                                              \
        }                                                                          \
    } while (0)

/* Functions that an older C library lacks, looked up where this one's are. */
static void *(*Reallocarray)(void *, size_t, size_t);
static void (*Free_sized)(void *, size_t);
static void (*Free_aligned_sized)(void *, size_t, size_t);
static void (*Cfree)(void *);
static void *(*Pvalloc)(size_t);

/* Keeps the compiler from knowing what malloc does. */
static void *(*volatile Malloc)(size_t) = malloc;
static void *(*volatile Realloc)(void *, size_t) = realloc;
static void *(*volatile Calloc)(size_t, size_t) = calloc;
static void (*volatile Free)(void *) = free;

static int holds(const unsigned char *bytes, size_t size, unsigned char value) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != value) return 0;
    return 1;
}

/* ---------------------------------------------------------------- what C and POSIX say */

static void task_rules(void) {
    *(void **)&Reallocarray = dlsym(RTLD_DEFAULT, "reallocarray");
    *(void **)&Free_sized = dlsym(RTLD_DEFAULT, "free_sized");
    *(void **)&Free_aligned_sized = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    *(void **)&Cfree = dlsym(RTLD_DEFAULT, "cfree");
    *(void **)&Pvalloc = dlsym(RTLD_DEFAULT, "pvalloc");
    EXPECT(Reallocarray && Free_sized && Free_aligned_sized && Cfree && Pvalloc);
    void *zero = Malloc(0), *other = Malloc(0);
    EXPECT(zero && other && zero != other);
    Free(zero);
    Free(other);
    Free(NULL);

    for (size_t size = 1; size < 300000; size += size / 3 + 1) {
        unsigned char *block = Malloc(size);
        EXPECT(block && (uintptr_t)block % 16 == 0 && malloc_usable_size(block) >= size);
        memset(block, 7, malloc_usable_size(block));
        block = Realloc(block, size * 2);
        EXPECT(block && holds(block, size, 7));
        block = Realloc(block, size / 2 + 1);
        EXPECT(block && holds(block, size / 2 + 1, 7));
        Free(block);
        unsigned char *clear = Calloc(size, 3);
        EXPECT(clear && holds(clear, size * 3, 0));
        memset(clear, 9, size * 3);
        Free(clear);
    }

    size_t absurd[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2, SIZE_MAX / 2 + 1, (size_t)1 << 62, (size_t)1 << 47};
    unsigned char *kept = Malloc(100);
    memset(kept, 5, 100);
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        errno = 0;
        EXPECT(!Malloc(absurd[i]) && errno == ENOMEM);
        errno = 0;
        EXPECT(!Realloc(kept, absurd[i]) && errno == ENOMEM && holds(kept, 100, 5));
        errno = 0;
        EXPECT(!Calloc(1, absurd[i]) && errno == ENOMEM);
        errno = 0;
        EXPECT(!memalign(64, absurd[i]) && errno == ENOMEM);
        errno = 0;
        EXPECT(!valloc(absurd[i]) && errno == ENOMEM);
        errno = 0;
        EXPECT(!Pvalloc(absurd[i]) && errno == ENOMEM);
        void *untouched = kept;
        errno = 77;
        EXPECT(posix_memalign(&untouched, 4096, absurd[i]) == ENOMEM && untouched == kept && errno == 77);
    }
    errno = 0;
    EXPECT(!Calloc(SIZE_MAX / 2, 3) && errno == ENOMEM);
    errno = 0;
    EXPECT(!Reallocarray(kept, SIZE_MAX / 2, 3) && errno == ENOMEM && holds(kept, 100, 5));
    /* Products that would be small again. */
    for (size_t count = (size_t)1 << 32; count; count <<= 1) {
        size_t size = SIZE_MAX / count + 2;
        errno = 0;
        EXPECT(!Calloc(count, size) && errno == ENOMEM);
        errno = 0;
        EXPECT(!Reallocarray(kept, count, size) && errno == ENOMEM && holds(kept, 100, 5));
    }
    kept = Reallocarray(kept, 50, 4);
    EXPECT(kept && holds(kept, 100, 5));
    errno = 77;
    EXPECT(!Realloc(kept, 0) && errno == 77);
    void *fresh = Realloc(NULL, 10);
    EXPECT(fresh);
    errno = 77;
    Free(fresh);
    EXPECT(errno == 77);

    for (size_t alignment = 1; alignment <= 8 << 20; alignment *= 2) {
        void *block = NULL;
        int result = posix_memalign(&block, alignment, 1000);
        if (alignment < sizeof(void *)) {
            EXPECT(result == EINVAL && !block);
        } else {
            EXPECT(result == 0 && (uintptr_t)block % alignment == 0 && malloc_usable_size(block) >= 1000);
            memset(block, 1, 1000);
            Free_aligned_sized(block, alignment, 1000);
        }
        block = aligned_alloc(alignment, 5000);
        EXPECT(block && (uintptr_t)block % alignment == 0);
        block = Realloc(block, 50000);
        EXPECT(block);
        Free_sized(block, 50000);
        block = memalign(alignment, 3);
        EXPECT(block && (uintptr_t)block % alignment == 0);
        Cfree(block);
    }
    size_t uneven[] = {0, 3, 24, 48, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof uneven / sizeof *uneven; i++) {
        void *block = (void *)1;
        EXPECT(posix_memalign(&block, uneven[i], 10) == EINVAL && block == (void *)1);
        errno = 0;
        EXPECT(!aligned_alloc(uneven[i], 10) && errno == EINVAL);
    }
    void *rounded = memalign(24, 10);
    EXPECT(rounded && (uintptr_t)rounded % 32 == 0);
    Free(rounded);
    errno = 0;
    EXPECT(!memalign(SIZE_MAX, 10) && errno == EINVAL);
    EXPECT(!aligned_alloc((size_t)1 << 60, 10) && errno == ENOMEM);

    void *page = valloc(1), *pages = Pvalloc(4097);
    EXPECT(malloc_usable_size(pages) >= 8192);
    EXPECT((uintptr_t)page % 4096 == 0 && (uintptr_t)pages % 4096 == 0 && malloc_usable_size(pages) >= 8192);
    Free(page);
    Free(pages);
    EXPECT(malloc_usable_size(NULL) == 0);
    char *text = strdup("the C library allocates here too");
    EXPECT(text && malloc_usable_size(text) >= 33);
    Free(text);
}

/* ---------------------------------------------------------------- threads */

enum { slot_count = 4096 };
static _Atomic(unsigned char *) slots[slot_count];

static unsigned char *filled(unsigned *state) {
    *state = *state * 1103515245u + 12345u;
    size_t size = 16 + (*state >> 8) % ((*state >> 4) % 50 == 0 ? 200000 : 600);
    unsigned char *block = Malloc(size + 8);
    EXPECT(block);
    memcpy(block, &size, sizeof size);
    memset(block + 8, (unsigned char)size, size);
    return block;
}

static void drop(unsigned char *block) {
    if (!block) return;
    size_t size;
    memcpy(&size, block, sizeof size);
    EXPECT(holds(block + 8, size, (unsigned char)size));
    Free(block);
}

/* Each thread puts blocks where others take them away. */
static void *exchange(void *argument) {
    unsigned state = (unsigned)(uintptr_t)argument * 2654435761u + 1;
    for (int i = 0; i < 20000; i++) {
        unsigned slot = (state >> 3) % slot_count;
        drop(__atomic_exchange_n((unsigned char **)&slots[slot], filled(&state), __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void *some(void *argument) {
    unsigned state = (unsigned)(uintptr_t)argument + 9;
    unsigned char *mine[40];
    for (int i = 0; i < 40; i++) mine[i] = filled(&state);
    for (int i = 0; i < 39; i++) drop(mine[i]);
    return mine[39];
}

static pthread_barrier_t all_there;

static void *meet(void *argument) {
    unsigned char *block = some(argument);
    pthread_barrier_wait(&all_there);
    drop(block);
    return some(argument);
}

static void start(pthread_t *thread, void *(*function)(void *), int number) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    EXPECT(pthread_create(thread, &attributes, function, (void *)(uintptr_t)number) == 0);
}

static pthread_key_t late_key;

/* Runs when a thread is nearly gone, and allocates once more. */
static void late(void *block) {
    drop(block);
    void *again = Malloc(1000);
    EXPECT(again);
    Free(again);
}

static void *leave_late(void *argument) {
    pthread_setspecific(late_key, some(argument));
    return NULL;
}

static void task_threads(void) {
    pthread_t threads[700];
    for (int i = 0; i < 8; i++) start(&threads[i], exchange, i);
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < slot_count; i++) drop(slots[i]);

    /* One after the other: what a thread leaves is freed by another and used again. */
    for (int i = 0; i < 1500; i++) {
        void *left;
        start(&threads[0], some, i);
        pthread_join(threads[0], &left);
        drop(left);
    }
    pthread_key_create(&late_key, late);
    for (int i = 0; i < 1000; i++) {
        start(&threads[0], leave_late, i);
        pthread_detach(threads[0]);
        if (i % 16 == 0) usleep(1000);
    }
    /* More at once than have a cache of their own. */
    pthread_barrier_init(&all_there, NULL, 700);
    for (int i = 0; i < 700; i++) start(&threads[i], meet, i);
    for (int i = 0; i < 700; i++) {
        void *left;
        pthread_join(threads[i], &left);
        drop(left);
    }
}

#include "forks.h"

static void task_dlopen(void) {
    for (int i = 0; i < 50; i++) {
        void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
        if (!library) library = dlopen("libc.so", RTLD_NOW);
        EXPECT(library && dlsym(library, "malloc"));
        EXPECT(!dlopen("/nonexistent/library.so", RTLD_NOW) && dlerror());
        dlclose(library);
    }
}

/* A plug-in that was linked with the library is loaded and let go: forks and threads' ends still call it. */
static void task_plugin(void) {
    void *library = dlopen(getenv("PLUGIN"), RTLD_NOW | RTLD_LOCAL);
    EXPECT(library);
    void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
    void (*release)(void *) = (void (*)(void *))dlsym(library, "free");
    EXPECT(allocate && release && allocate != Malloc);
    release(allocate(100));
    dlclose(library);
    pid_t child = fork();
    if (child == 0) _exit(0);
    EXPECT(finish(child) == 0);
    pthread_t thread;
    start(&thread, some, 1);
    pthread_join(thread, NULL);
}

/* ---------------------------------------------------------------- memory that ends */

static void task_full(void) {
    enum { count = 200000 };
    static unsigned char *blocks[count];
    int n = 0;
    size_t size = 100000;
    errno = 0;
    while (n < count && (blocks[n] = Malloc(size))) memset(blocks[n], n, size), n++;
    EXPECT(n < count && errno == ENOMEM);
    for (int i = 0; i < n; i++) EXPECT(holds(blocks[i], size, (unsigned char)i));
    /* What is left is for smaller ones; a growing block stays as it is. */
    errno = 0;
    EXPECT(!Realloc(blocks[0], 100 << 20) && errno == ENOMEM && holds(blocks[0], size, 0));
    errno = 0;
    EXPECT(!Calloc(100 << 20, 1) && errno == ENOMEM);
    for (int i = 0; i < n; i++) Free(blocks[i]);
    for (int round = 0; round < 3; round++) {
        int again = 0;
        while (again < n && (blocks[again] = Malloc(size))) memset(blocks[again], 1, size), again++;
        EXPECT(again >= n - 2);
        for (int i = 0; i < again; i++) Free(blocks[i]);
    }
    printf("%d\n", n);
}

static unsigned long long room_left(void) {
    struct statvfs of;
    int directory = open(getenv("VMMALLOC_POOL_DIR"), O_RDONLY);
    /* Btrfs counts what was given back when it has noted it. */
    EXPECT(directory >= 0 && syncfs(directory) == 0 && fstatvfs(directory, &of) == 0);
    close(directory);
    return (unsigned long long)of.f_bfree * of.f_bsize;
}

static long pages_touched(void) {
    struct rusage of;
    EXPECT(getrusage(RUSAGE_SELF, &of) == 0);
    return of.ru_minflt;
}

/* What is refused leaves others the room that there is, and does not take it meanwhile where it is memory. */
static void task_refused(void) {
    unsigned char *kept = Malloc(5 << 20);
    EXPECT(kept);
    memset(kept, 1, 5 << 20);
    unsigned long long before = room_left();
    long touched = pages_touched();
    for (int i = 0; i < 2; i++) {
        errno = 0;
        EXPECT(!Malloc(before + (8 << 20)) && errno == ENOMEM && room_left() > before - before / 8);
        errno = 0;
        EXPECT(!Realloc(kept, before + (8 << 20)) && errno == ENOMEM && room_left() > before - before / 8);
    }
    EXPECT(pages_touched() - touched < 1000);
    unsigned char *more = Malloc(before / 2);
    EXPECT(more && holds(kept, 5 << 20, 1));
    memset(more, 2, before / 2);
    EXPECT(holds(kept, 5 << 20, 1));
}

/* Stores again to what the medium has already: that takes no room. */
static void task_full_again(void) {
    enum { count = 20000, size = 100000 };
    static unsigned char *blocks[count];
    int n = 0;
    while (n < count && (blocks[n] = Malloc(size))) memset(blocks[n], n, size), n++;
    EXPECT(n > 100 && n < count);
    for (int round = 0; round < 2; round++) {
        sync();
        for (int i = 0; i < n; i++) {
            EXPECT(holds(blocks[i], size, (unsigned char)(i + round)));
            memset(blocks[i], i + round + 1, size);
        }
    }
}

/* A child of a parent that gave memory back needs room for what is in use. */
static void task_fork_later(void) {
    enum { count = 120, kept = 4 };
    unsigned char *blocks[count];
    size_t size = 1 << 20;
    for (int i = 0; i < count; i++) {
        EXPECT((blocks[i] = Malloc(size)) != NULL);
        memset(blocks[i], i, size);
    }
    for (int i = kept; i < count; i++) Free(blocks[i]);
    puts("freed");
    fflush(stdout);
    char byte;
    EXPECT(read(0, &byte, 1) == 1);
    if (getenv("CLOSE_ALL")) close_all();
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < kept; i++) EXPECT(holds(blocks[i], size, (unsigned char)i));
        /* A copy has room for little more; private memory is the system's. */
        int last = *getenv("VMMALLOC_FORK") == '1' ? count : 24;
        for (int round = 0; round < 2; round++) {
            for (int i = kept; i < last; i++) {
                EXPECT((blocks[i] = Calloc(1, size)) != NULL && holds(blocks[i], size, 0));
                memset(blocks[i], 9, size);
            }
            for (int i = kept; i < last; i++) Free(blocks[i]);
        }
        _exit(41);
    }
    printf("%d\n", finish(child) >> 8);
    fflush(stdout);
    for (int i = 0; i < kept; i++) EXPECT(holds(blocks[i], size, (unsigned char)i));
}

/* Memory that went back to a file system which is full now: asks on stdin to be told. */
static void task_full_later(void) {
    enum { count = 120 };
    unsigned char *blocks[count];
    size_t size = 1 << 20;
    for (int i = 0; i < count; i++) {
        EXPECT((blocks[i] = Malloc(size)) != NULL);
        memset(blocks[i], 1, size);
    }
    for (int i = 0; i < count; i++) Free(blocks[i]);
    puts("freed");
    fflush(stdout);
    char byte;
    EXPECT(read(0, &byte, 1) == 1);
    int n = 0;
    errno = 0;
    while (n < count && (blocks[n] = Malloc(size))) memset(blocks[n], 1, size), n++;
    EXPECT(n < count && errno == ENOMEM);
    puts("refused");
    fflush(stdout);
    EXPECT(read(0, &byte, 1) == 1);
    while (n < count && (blocks[n] = Malloc(size))) memset(blocks[n], 1, size), n++;
    EXPECT(n == count);
}

/* Prints what became of a child for whose memory there is no second place. */
static void task_fork_full(void) {
    size_t size = 20 << 20;
    unsigned char *block = Malloc(size);
    EXPECT(block);
    memset(block, 4, size);
    int open_before = descriptors();
    pid_t child = fork();
    if (child == 0) {
        memset(block, 5, size);
        EXPECT(holds(block, size, 5));
        _exit(41);
    }
    int status = finish(child);
    EXPECT(WIFEXITED(status) && holds(block, size, 4) && descriptors() == open_before);
    printf("%d\n", WEXITSTATUS(status));
}

static void task_fork_full_threads(void) {
    pthread_t thread;
    start(&thread, sleeper, 0);
    task_fork_full();
    stay_in_thread = 0;
    pthread_join(thread, NULL);
}

static void task_kill(void) {
    unsigned char *block = Malloc(20 << 20);
    EXPECT(block);
    memset(block, 1, 20 << 20);
    raise(SIGKILL);
}

static void task_wait(void) {
    unsigned char *block = Malloc(20 << 20);
    memset(block, 1, 20 << 20);
    puts("waiting");
    fflush(stdout);
    char byte;
    if (read(0, &byte, 1) < 0) _exit(1);
}

/* ---------------------------------------------------------------- pointers that are none */

static void task_free_twice(void) {
    void *block = Malloc(100);
    Free(block);
    Free(block);
}

/* Nothing that a program does about the signal keeps it going. */
static void task_free_twice_ignored(void) {
    sigset_t all;
    sigfillset(&all);
    EXPECT(signal(SIGABRT, SIG_IGN) != SIG_ERR && sigprocmask(SIG_BLOCK, &all, NULL) == 0);
    task_free_twice();
}

static void task_free_after_realloc(void) {
    void *block = Malloc(100);
    EXPECT(!Realloc(block, 0));
    Free(block);
}

static void task_free_large_twice(void) {
    void *block = Malloc(1 << 20);
    Free(block);
    Free(block);
}

static void task_free_inside(void) {
    char *block = Malloc(100);
    Free(block + 16);
}

static void task_free_stack(void) {
    char bytes[100];
    Free(bytes + 8);
}

static void task_free_wild(void) { Free((void *)0x123456789000); }

static void task_realloc_freed(void) {
    void *block = Malloc(100);
    Free(block);
    Realloc(block, 200);
}

static void task_size_wild(void) { malloc_usable_size((void *)0x4000); }

/* Blocks that the C library's own malloc gave out, as a library loaded before might have. */
static void task_foreign(void) {
    void *(*own)(size_t) = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "__libc_malloc");
    if (!own) return;
    unsigned char *small = own(100), *large = own(1 << 20), *moved = own(500);
    memset(moved, 6, 500);
    Free(small);
    Free(large);
    moved = Realloc(moved, 5000);
    EXPECT(moved && holds(moved, 500, 6) && malloc_usable_size(moved) >= 5000);
    Free(moved);
}

/* Prints where its memory lies: a line of /proc/self/maps. */
static void task_where(void) {
    unsigned char *block = Malloc(100);
    fputs(map_of(block), stdout);
    Free(block);
}

/* Prints what a program without a pool shows of one. */
static void task_footprint(void) {
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    EXPECT(statm && fscanf(statm, "%lu", &pages) == 1);
    fclose(statm);
    printf("%d descriptors, %s\n", descriptors(), pages >> 20 ? "4 GiB and more" : "less than 4 GiB");
}

/* Leaves 1000 blocks for the statistics. */
static void task_kept(void) {
    for (int i = 0; i < 1000; i++) EXPECT(Malloc(1000));
}

/* The same on a file system that makes no files without a name. */
static void task_named(void) {
    enum { o_tmpfile = 020000000 };
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, o_tmpfile, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof instructions / sizeof *instructions, instructions};
    EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    execl("/proc/self/exe", "program", "where", (char *)0);
}

static void task_minimum(void) { printf("%zu\n", VMMALLOC_MIN_POOL); }

static void task_nothing(void) {}

static const struct {
    const char *name;
    void (*run)(void);
} tasks[] = {
#define TASK(name) {#name, task_##name}
    TASK(rules), TASK(threads), TASK(fork), TASK(fork_threads), TASK(fork_backing),
    TASK(fork_backing_threads), TASK(atfork), TASK(closed), TASK(closed_threads), TASK(descriptors), TASK(exec),
    TASK(dlopen), TASK(plugin), TASK(full), TASK(full_again), TASK(full_later), TASK(fork_full), TASK(fork_full_threads),
    TASK(child_without_rights), TASK(child_without_directory), TASK(child_without_descriptors),
    TASK(closed_descriptors), TASK(fork_stdio), TASK(fork_bare_thread), TASK(given_back_without_directory), TASK(fork_in_handler), TASK(refused), TASK(free_after_realloc), TASK(named), TASK(fork_later), TASK(footprint), TASK(kept), TASK(kill), TASK(wait), TASK(free_twice), TASK(free_twice_ignored), TASK(free_large_twice),
    TASK(free_inside), TASK(free_stack), TASK(free_wild), TASK(realloc_freed), TASK(size_wild), TASK(foreign),
    TASK(where), TASK(minimum), TASK(nothing),
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof tasks / sizeof *tasks; i++) {
        if (strcmp(tasks[i].name, argv[1])) continue;
        tasks[i].run();
        puts("ok");
        return 0;
    }
    fprintf(stderr, "no such task\n");
    return 2;
}
