/*
 * The tasks of program.c that fork: what parent and child have, and where it lies.
 */
static volatile int stopping;

static void *busy(void *argument) {
    unsigned state = (unsigned)(uintptr_t)argument + 77;
    unsigned char *mine[64] = {0};
    unsigned long stored = 0;
    while (!stopping) {
        unsigned i = (state >> 5) % 64;
        drop(mine[i]);
        mine[i] = filled(&state);
        stored++;
    }
    for (int i = 0; i < 64; i++) drop(mine[i]);
    return (void *)stored;
}

static int descriptors(void) {
    int open = 0;
    for (int fd = 0; fd < 4096; fd++) open += fcntl(fd, F_GETFD) >= 0;
    return open;
}

static int finish(pid_t child) {
    int status;
    EXPECT(waitpid(child, &status, 0) == child);
    return status;
}

static void child_work(unsigned char **blocks, int count, size_t size, unsigned char value) {
    for (int i = 0; i < count; i++) EXPECT(holds(blocks[i], size, value));
    for (int i = 0; i < count; i++) memset(blocks[i], 200, size);
    unsigned state = (unsigned)getpid();
    unsigned char *more[300];
    for (int i = 0; i < 300; i++) more[i] = filled(&state);
    for (int i = 0; i < 300; i++) drop(more[i]);
    for (int i = 0; i < count; i += 2) Free(blocks[i]);
    for (int i = 1; i < count; i += 2) EXPECT(holds(blocks[i], size, 200));
}

/* Parent and children change the same blocks, and none sees the other's stores. */
static void forks(int rounds) {
    enum { count = 300, size = 20000 };
    static unsigned char *blocks[count];
    for (int i = 0; i < count; i++) EXPECT((blocks[i] = Malloc(size)) != NULL);
    for (int round = 0; round < rounds; round++) {
        unsigned char value = (unsigned char)(round % 199);
        for (int i = 0; i < count; i++) memset(blocks[i], value, size);
        int go[2];
        EXPECT(pipe(go) == 0);
        pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            char byte;
            EXPECT(read(go[0], &byte, 1) == 1); /* The parent has stored by now. */
            if (round % 3 == 0) {
                pid_t grandchild = fork();
                EXPECT(grandchild >= 0);
                if (grandchild == 0) {
                    child_work(blocks, count, size, value);
                    _exit(42);
                }
                EXPECT(finish(grandchild) == 42 << 8);
            }
            child_work(blocks, count, size, value);
            _exit(41);
        }
        for (int i = 0; i < count; i++) {
            memset(blocks[i], 201, size);
            if (i % 3 == round % 3) {
                Free(blocks[i]);
                EXPECT((blocks[i] = Malloc(size)) != NULL);
                memset(blocks[i], 201, size);
            }
        }
        EXPECT(write(go[1], "x", 1) == 1);
        EXPECT(finish(child) == 41 << 8);
        for (int i = 0; i < count; i++) EXPECT(holds(blocks[i], size, 201));
        close(go[0]);
        close(go[1]);
    }
    for (int i = 0; i < count; i++) Free(blocks[i]);
}

static void task_fork(void) {
    int before = descriptors();
    forks(6);
    EXPECT(descriptors() == before);
}

/* A line of /proc/self/maps: what is mapped where `block` lies. */
static const char *map_of(const void *block) {
    static char line[5000];
    FILE *maps = fopen("/proc/self/maps", "r");
    EXPECT(maps);
    unsigned long from, to;
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx", &from, &to) == 2 && (uintptr_t)block >= from && (uintptr_t)block < to) break;
    fclose(maps);
    return line;
}

/* How a block is mapped: "shared" or "private", and the file's number. */
static const char *backing(const void *block, unsigned long *file) {
    char kind;
    EXPECT(sscanf(map_of(block), "%*s rw-%c %*s %*s %lu", &kind, file) == 2);
    return kind == 's' ? "shared" : "private";
}

static volatile int stay_in_thread = 1;

static void *sleeper(void *argument) {
    while (stay_in_thread) usleep(1000);
    return argument;
}

/* Prints how parent and child have the same block after a fork, and one that each makes then. */
static void fork_backing(void) {
    unsigned long before, own, new;
    unsigned char *old = Malloc(1 << 20);
    EXPECT(old);
    backing(old, &before);
    int open_before = descriptors();
    pid_t child = fork();
    EXPECT(child >= 0);
    const char *side = child ? "parent" : "child";
    if (child) EXPECT(finish(child) == 0);
    printf("%s: old %s", side, backing(old, &own));
    if (strcmp(backing(old, &own), "shared") == 0) printf(" in %s file", own == before ? "the" : "another");
    unsigned char *more = Malloc(40 << 20);
    EXPECT(more);
    memset(more, 1, 40 << 20);
    const char *kind = backing(more + (40 << 20) - 1, &new);
    EXPECT(descriptors() <= open_before);
    printf(", new %s in %s file\n", kind, new == before ? "the" : new == own ? "its" : "another");
    fflush(stdout);
    if (!child) _exit(0);
}

static void task_fork_backing(void) { fork_backing(); }

static void task_fork_backing_threads(void) {
    pthread_t thread;
    start(&thread, sleeper, 0);
    fork_backing();
    stay_in_thread = 0;
    pthread_join(thread, NULL);
}

static void task_fork_threads(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) start(&threads[i], busy, i);
    forks(6);
    stopping = 1;
    for (int i = 0; i < 4; i++) {
        void *stored;
        pthread_join(threads[i], &stored);
        EXPECT(stored);
    }
}

static void allocate_in_handler(void) {
    void *block = Malloc(5000);
    EXPECT(block);
    memset(block, 3, 5000);
    Free(block);
}

static void task_atfork(void) {
    pthread_atfork(allocate_in_handler, allocate_in_handler, allocate_in_handler);
    forks(3);
}

static void close_all(void) {
    for (int fd = 3; fd < 4096; fd++) close(fd);
}

/* A server that becomes a daemon closes every descriptor that it does not know. */
static void task_closed(void) {
    unsigned char *before = Malloc(3 << 20);
    memset(before, 1, 3 << 20);
    close_all();
    int others[8];
    for (int i = 0; i < 8; i++) others[i] = fileno(tmpfile());
    unsigned char *after = Malloc(40 << 20);
    EXPECT(after);
    memset(after, 2, 40 << 20);
    EXPECT(holds(before, 3 << 20, 1));
    forks(3);
    EXPECT(holds(before, 3 << 20, 1) && holds(after, 40 << 20, 2));
    for (int i = 0; i < 8; i++) EXPECT(lseek(others[i], 0, SEEK_END) == 0);
}

static void *count_up(void *counters) {
    unsigned long *each = counters;
    for (unsigned long round = 0; !stopping; round++)
        for (int i = 0; i < 4096; i++) EXPECT(each[i] == round && (each[i] = round + 1));
    return NULL;
}

/* The same with threads, which lose nothing that they store while another forks. */
static void task_closed_threads(void) {
    unsigned char *large = Malloc(30 << 20);
    memset(large, 1, 30 << 20);
    void *counters[2] = {Calloc(4096, sizeof(unsigned long)), Calloc(4096, sizeof(unsigned long))};
    close_all();
    int before = descriptors();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) EXPECT(pthread_create(&threads[i], NULL, count_up, counters[i]) == 0);
    for (int i = 1; i < 4; i++) {
        pid_t child = fork();
        if (child == 0) {
            int all = holds(large, 30 << 20, i) && descriptors() <= before + 1;
            memset(large, 200, 30 << 20);
            void *more = Malloc(40 << 20);
            _exit(all && more ? 41 : 1);
        }
        /* Before the child has run: what it sees is what was. */
        memset(large, i + 1, 30 << 20);
        EXPECT(finish(child) == 41 << 8 && holds(large, 30 << 20, i + 1) && descriptors() == before);
    }
    stopping = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

/* What a child does that cannot make a file of its own any more: its parent's memory is its own, and it
 * can have more. */
static void child_without_file(void (*lose)(void)) {
    size_t size = 3 << 20, more = 40 << 20;
    unsigned char *block = Malloc(size);
    EXPECT(block);
    memset(block, 1, size);
    pid_t child = fork();
    if (child == 0) {
        lose();
        for (int i = 0; i < 3; i++) {
            unsigned char *own = Calloc(1, more);
            EXPECT(own && holds(own, more, 0));
            memset(own, 2, more);
            pid_t grandchild = fork();
            if (grandchild == 0) {
                EXPECT(holds(block, size, 1) && holds(own, more, 2));
                memset(own, 3, more);
                pid_t last = fork();
                if (last == 0) _exit(holds(own, more, 3) && Malloc(more) ? 43 : 1);
                EXPECT(finish(last) == 43 << 8);
                _exit(42);
            }
            EXPECT(finish(grandchild) == 42 << 8 && holds(own, more, 2));
            Free(own);
        }
        pthread_t thread;
        void *stored;
        start(&thread, some, 1);
        pthread_join(thread, &stored);
        drop(stored);
        EXPECT(holds(block, size, 1));
        _exit(41);
    }
    EXPECT(finish(child) == 41 << 8 && holds(block, size, 1));
}

static void lose_rights(void) { EXPECT(!setgid(65534) && !setuid(65534)); }
static void task_child_without_rights(void) { child_without_file(lose_rights); }

static void lose_directory(void) { EXPECT(rmdir(getenv("VMMALLOC_POOL_DIR")) == 0); }
static void task_child_without_directory(void) { child_without_file(lose_directory); }

static void lose_descriptors(void) {
    while (dup(0) >= 0) {}
    EXPECT(errno == EMFILE);
}
static void task_child_without_descriptors(void) { child_without_file(lose_descriptors); }

/* A program that closed the pool's file, and has none left for another. */
static void task_closed_descriptors(void) {
    unsigned char *before = Malloc(3 << 20);
    memset(before, 1, 3 << 20);
    close_all();
    lose_descriptors();
    unsigned char *after = Malloc(40 << 20);
    EXPECT(after);
    memset(after, 2, 40 << 20);
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        if (child == 0) {
            EXPECT(holds(before, 3 << 20, 1) && holds(after, 40 << 20, 2));
            memset(before, 3, 3 << 20);
            memset(after, 3, 40 << 20);
            EXPECT(Malloc(60 << 20));
            _exit(41);
        }
        EXPECT(finish(child) == 41 << 8 && holds(before, 3 << 20, 1) && holds(after, 40 << 20, 2));
        Free(after);
        EXPECT((after = Malloc(50 << 20)));
        memset(after, 2, 50 << 20);
    }
}

/* One thread has a stream's lock and wants memory, one has that of all streams and waits for the first
 * one's; a third one forks. */
static void *read_lines(void *stream) {
    while (!stopping) {
        char *text = NULL;
        size_t size = 0;
        rewind(stream);
        while (!stopping && getline(&text, &size, stream) > 0) {
            EXPECT(strlen(text) == 3001);
            Free(text);
            text = NULL;
        }
        Free(text);
    }
    return NULL;
}

static void *flush_all(void *argument) {
    while (!stopping) fflush(NULL);
    return argument;
}

static void task_fork_stdio(void) {
    pthread_t threads[3];
    for (int i = 0; i < 2; i++) {
        char path[64];
        FILE *file = tmpfile();
        for (int line = 0; line < 50; line++) fprintf(file, "%03000d\n", line);
        EXPECT(fflush(file) == 0);
        sprintf(path, "/proc/self/fd/%d", fileno(file));
        FILE *stream = fopen(path, "r");
        EXPECT(stream && pthread_create(&threads[i], NULL, read_lines, stream) == 0);
    }
    start(&threads[2], flush_all, 0);
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        if (child == 0) {
            /* The child's streams are free. */
            FILE *stream = tmpfile();
            EXPECT(stream && fputs("text", stream) >= 0 && fclose(stream) == 0);
            _exit(41);
        }
        EXPECT(finish(child) == 41 << 8);
    }
    stopping = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static int stand_still(void *argument) {
    for (;;) syscall(SYS_pause);
    return argument != NULL;
}

/* A thread that the C library does not know of: the lock of all streams is its fork's no more. */
static void task_fork_bare_thread(void) {
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    static char stack[16384] __attribute__((aligned(16)));
    EXPECT(clone(stand_still, stack + sizeof stack, flags, NULL) > 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        stopping = 0;
        pthread_t thread;
        start(&thread, flush_all, 0);
        usleep(20000);
        stopping = 1;
        pthread_join(thread, NULL);
        _exit(41);
    }
    EXPECT(finish(child) == 41 << 8);
}

static size_t resident(void) {
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    EXPECT(statm && fscanf(statm, "%*s %lu", &pages) == 1);
    fclose(statm);
    return pages * 4096;
}

/* Memory of the system, had where no file can be made, goes back to it. */
static void task_given_back_without_directory(void) {
    size_t size = 200 << 20;
    pid_t child = fork();
    if (child == 0) {
        lose_directory();
        unsigned char *block = Malloc(size);
        EXPECT(block);
        memset(block, 1, size);
        EXPECT(resident() > size);
        Free(block);
        /* It goes a piece at a time. */
        for (int i = 0; i < 100; i++) Free(Malloc(1 << 20));
        EXPECT(resident() < size / 2);
        _exit(41);
    }
    EXPECT(finish(child) == 41 << 8);
}

/* A server all of whose descriptors are in use, and that has forked before. */
static void task_descriptors(void) {
    EXPECT(Malloc(1 << 20));
    pid_t child = fork();
    if (child == 0) _exit(0);
    EXPECT(finish(child) == 0);
    while (dup(0) >= 0) {}
    EXPECT(errno == EMFILE);
    for (int i = 0; i < 3; i++) {
        unsigned char *block = Malloc(20 << 20);
        EXPECT(block);
        memset(block, 1, 20 << 20);
        child = fork();
        if (child == 0) _exit(holds(block, 20 << 20, 1) ? 0 : 1);
        EXPECT(finish(child) == 0);
    }
}

static void task_exec(void) {
    for (int i = 0; i < 20; i++) {
        pid_t child = vfork();
        if (child == 0) {
            execl("/proc/self/exe", "program", "nothing", (char *)0);
            _exit(9);
        }
        EXPECT(finish(child) == 0);
    }
    EXPECT(system("exit 7") == 7 << 8);
    FILE *pipe_out = popen("echo through a pipe", "r");
    char line[64];
    EXPECT(pipe_out && fgets(line, sizeof line, pipe_out) && !strcmp(line, "through a pipe\n"));
    EXPECT(pclose(pipe_out) == 0);
}

static volatile sig_atomic_t interrupted;

static void fork_in_handler(int signal) {
    pid_t child = fork();
    if (child == 0) _exit(signal == SIGALRM ? 41 : 1);
    interrupted += finish(child) == 41 << 8;
}

/* A handler that forks, whatever it interrupts; POSIX lets it. */
static void task_fork_in_handler(void) {
    struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    EXPECT(setitimer(ITIMER_REAL, &often, NULL) == 0);
    unsigned state = 5;
    unsigned char *mine[64] = {0};
    while (interrupted < 200) {
        unsigned i = (state >> 5) % 64;
        drop(mine[i]);
        mine[i] = filled(&state);
    }
    EXPECT(setitimer(ITIMER_REAL, &never, NULL) == 0);
    for (int i = 0; i < 64; i++) drop(mine[i]);
}
