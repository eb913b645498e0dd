/*
 * perm.h - a persistent heap for C and C++: PERM's functions, and what is new.
 *
 * A program registers globals, opens a heap, allocates from it, and commits both to a file; killed at
 * any moment, it goes on from the last commit, at the same addresses. Link with -lperm (pkg-config
 * perm), or with libperm.a; nothing else is needed.
 *
 * Functions that return int give 0, or -1 with errno set and perm_error() saying what was refused and
 * what to do. Nothing is ever printed. All functions may be called from several threads at once;
 * opening, closing and restoring a heap while others use it is the program's mistake.
 */
#ifndef PERM_H
#define PERM_H 1

#include <stddef.h>
#include <stdint.h>

#ifdef PERM_MANGLE
/* Before its names get another meaning. */
#include <stdlib.h>
#include <string.h>
#ifdef __cplusplus
#include <cstdlib>
#include <cstring>
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ PERM's own interface */

/*
 * PERM marks a global as persistent: `PERM int counters[10];`. The linker gathers all that are
 * marked, and perm(PERM_START, PERM_SIZE) registers them in one call. Every executable and every
 * shared library has a PERM block of its own.
 */
#define PERM __attribute__((section("persistent")))

extern char __start_persistent[] __attribute__((weak, visibility("hidden")));
extern char __stop_persistent[] __attribute__((weak, visibility("hidden")));

#define PERM_START ((void *)__start_persistent)
#define PERM_END ((void *)__stop_persistent)
#define PERM_SIZE ((size_t)((uintptr_t)__stop_persistent - (uintptr_t)__start_persistent))

/*
 * Registers a block of the program's memory: saved with every commit, filled when a heap that holds it
 * is opened or restored. Call it before mopen(). A registration lasts until unperm(), also from one
 * heap to the next. The block is known by its address and size: where a program was loaded elsewhere,
 * or built anew, its heap is refused (BLOCK_MISMATCH) and nothing is touched. Run such a program under
 * `setarch -R`, link it with -no-pie, or use perm_named().
 */
int perm(void *ptr, size_t size);

/*
 * Opens the default heap. "w+" makes a new one in `fname`, or one without a file when that is NULL;
 * an image that stood there is replaced by the first commit and not before. "r+" goes on at the last
 * commit, after a crash too; "r" reads only: what is changed then stays in the process. `size` is what
 * the heap holds before it grows; 0 is 64 MiB. Returns -2 when a heap is open already.
 * PERM_ADDRESS in the environment places a new heap.
 */
int mopen(const char *fname, const char *mode, size_t size);

/* Commits to the map file and closes both files; when the commit fails all stays open. The heap's
 * memory can still be read, and freed, until another heap is opened. */
int mclose(void);

/* Commits heap and blocks to the map file: all of it or none of it. */
int mflush(void);

/* Opens the backup file. "w+" replaces any image there with the first backup(); "r+" goes on with
 * it; "r" is for restore() only. Returns -2 when one is open already. */
int bopen(const char *fname, const char *mode);

/* Closes the backup file; after mclose() there is nothing left to do. */
int bclose(void);

/* Commits heap and blocks to the backup file: all of it or none of it. */
int backup(void);

/* Takes heap and blocks back to the last commit of the backup file. */
int restore(void);

/* ------------------------------------------------------------------ memory */

/*
 * The C library's functions on the default heap. Without one, the first call opens the heap that
 * PERM_FNAME names, if it does: PERM_MODE ("w+"), PERM_SIZE ("1G"; suffixes K M G T); it is committed
 * when the program exits. With PERM_MANGLE defined they are also called malloc, free and so on.
 *
 * perm_free() of what is no block of the heap does nothing but set perm_error(); perm_check() finds
 * damage that the program did to the allocator. perm_realloc(p, 0) frees p and returns NULL.
 */
#ifdef __GNUC__
#define PERM_ALLOCATES(...) __attribute__((warn_unused_result, __VA_ARGS__))
#else
#define PERM_ALLOCATES(...)
#endif

void *perm_malloc(size_t size) PERM_ALLOCATES(malloc, alloc_size(1));
void *perm_calloc(size_t count, size_t size) PERM_ALLOCATES(malloc, alloc_size(1, 2));
void *perm_realloc(void *ptr, size_t size) PERM_ALLOCATES(alloc_size(2));
void *perm_reallocarray(void *ptr, size_t count, size_t size) PERM_ALLOCATES(alloc_size(2, 3));
void perm_free(void *ptr);
void perm_free_sized(void *ptr, size_t size);
void perm_free_aligned_sized(void *ptr, size_t alignment, size_t size);
int perm_posix_memalign(void **memptr, size_t alignment, size_t size);
void *perm_aligned_alloc(size_t alignment, size_t size) PERM_ALLOCATES(malloc, alloc_size(2));
void *perm_memalign(size_t alignment, size_t size) PERM_ALLOCATES(malloc, alloc_size(2));
void *perm_valloc(size_t size) PERM_ALLOCATES(malloc, alloc_size(1));
size_t perm_malloc_usable_size(void *ptr);
char *perm_strdup(const char *text) PERM_ALLOCATES(malloc);
char *perm_strndup(const char *text, size_t size) PERM_ALLOCATES(malloc);

/* ------------------------------------------------------------------ errors */

enum perm_code {
  PERM_OK = 0,
  PERM_INVALID_ARGUMENT = 1,
  PERM_NOT_FOUND,
  PERM_EXISTS,
  PERM_BUSY,
  PERM_READ_ONLY,
  PERM_NOT_OPEN,
  PERM_ALREADY_OPEN,
  PERM_CLOSED,
  PERM_NO_COMMIT,
  PERM_NO_EPOCH,
  PERM_NOT_AN_IMAGE,
  PERM_BAD_VERSION,
  PERM_CORRUPT,
  PERM_ADDRESS_IN_USE,
  PERM_BLOCK_MISMATCH,
  PERM_OUT_OF_MEMORY,
  PERM_NO_SPACE,
  PERM_IO,
  PERM_BAD_POINTER,
  PERM_DOUBLE_FREE,
  PERM_STALE,
  PERM_LAYOUT_MISMATCH,
  PERM_FORKED,
  PERM_PERMISSION,
  PERM_UNSUPPORTED
};

/* What the calling thread's last failed call was about: a sentence, valid until its next failure; ""
 * when none has failed. */
const char *perm_error(void);

/* Its code, PERM_OK when none has failed; and a code's name, such as "BLOCK_MISMATCH". */
int perm_error_code(void);
const char *perm_code_name(int code);

/* Forgets it: what is told afterwards happened later. */
void perm_clear_error(void);

/* ------------------------------------------------------------------ globals by name */

/* Registers a block that is known by its name wherever it lies: for programs that are built anew, and
 * for several programs on one heap. Pointers to the program's own globals or code do not survive
 * that; pointers into the heap do. */
int perm_named(const char *name, void *ptr, size_t size);

/* Ends a registration, by address or by name; the stored block goes with the next commit. */
int unperm(void *ptr);

/* ------------------------------------------------------------------ several heaps, epochs */

/* A heap of this process. NULL stands for the default heap wherever one is asked for. A handle of a
 * heap that was closed is refused (PERM_CLOSED), never followed. */
typedef struct perm_heap perm_heap;

/* What can be asked for; zero or NULL is "not given". Begin with `perm_options o = PERM_OPTIONS;`. */
typedef struct perm_options {
  size_t struct_size;
  const char *path;        /* map file */
  const char *backup_path; /* backup file; perm_heap_open() only */
  const char *mode;        /* "w+", "r+", "r"; NULL: go on, or make a new heap */
  uint64_t size;           /* bytes before it grows */
  uint64_t max_size;       /* bytes it may grow to; fixed when it is made */
  uint64_t address;        /* where a new heap lies, a multiple of 64 KiB */
  uint64_t keep;           /* epochs to go back to, 1 unless given */
  uint64_t log_limit;      /* bytes of log that start a fold */
  int verify;              /* read and check all of it */
  int recover;             /* open what is whole of a damaged image */
  int replace;             /* "w+" may replace a file that is no image */
} perm_options;

#define PERM_OPTIONS { sizeof(perm_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* What a commit or a restore did. `dropped`: the file held the torn end of a later commit. */
typedef struct perm_report {
  uint64_t epoch;
  uint64_t pages;
  uint64_t bytes;
  double milliseconds;
  int dropped;
} perm_report;

/* An epoch that can be gone back to; `time` in milliseconds since 1970. */
typedef struct perm_epoch {
  uint64_t epoch;
  uint64_t time;
  uint64_t pages;
  uint64_t bytes;
} perm_epoch;

typedef struct perm_stats {
  uint64_t live_bytes;
  uint64_t live_blocks;
  uint64_t used;
  uint64_t capacity;
  uint64_t max_size;
  uint64_t epoch;
} perm_stats;

enum perm_image { PERM_MAP = 0, PERM_BACKUP = 1 };

/* Opens the default heap with options; else as mopen(). */
int perm_mopen(const perm_options *options);
/* Opens a backup file beside a heap, with options (path, mode, keep, log_limit, ...). */
int perm_bopen(perm_heap *heap, const perm_options *options);
int perm_bclose(perm_heap *heap);
/* Makes the heap hold at least `size` bytes, up to its limit. */
int perm_grow(perm_heap *heap, uint64_t size);
/* The default heap's handle, NULL when none is open. */
perm_heap *perm_default(void);
/* Opens a heap beside the default one. Without `mode` it goes on from whichever of both files holds
 * the newest commit, or is made. Threads of this process may share it; globals registered with perm()
 * are not its. */
perm_heap *perm_heap_open(const perm_options *options);
/* Closes without committing. Its memory reads as zeros afterwards. */
int perm_heap_close(perm_heap *heap);

/* Commits to the map or the backup file; `report` may be NULL. With nothing changed the epoch stays. */
int perm_commit(perm_heap *heap, int image, perm_report *report);
/* Goes back to an epoch of the map or the backup file; 0 is the last one. */
int perm_restore(perm_heap *heap, int image, uint64_t epoch, perm_report *report);
/* Fills at most `capacity` epochs, oldest first; returns how many there are, -1 on error. */
long perm_epochs(perm_heap *heap, int image, perm_epoch *epochs, size_t capacity);

void *perm_heap_malloc(perm_heap *heap, size_t size) PERM_ALLOCATES(malloc, alloc_size(2));
void *perm_heap_calloc(perm_heap *heap, size_t count, size_t size) PERM_ALLOCATES(malloc, alloc_size(2, 3));
void *perm_heap_realloc(perm_heap *heap, void *ptr, size_t size) PERM_ALLOCATES(alloc_size(3));
void *perm_heap_aligned_alloc(perm_heap *heap, size_t alignment, size_t size) PERM_ALLOCATES(malloc, alloc_size(3));
int perm_heap_free(perm_heap *heap, void *ptr);

/* A named block that lies in the heap, zeroed when it is new; NULL when another size has that name. */
void *perm_global(perm_heap *heap, const char *name, size_t size);
/* Registers a block outside the heap with this heap, by name; and ends that, or removes a global. */
int perm_heap_perm(perm_heap *heap, const char *name, void *ptr, size_t size);
int perm_heap_unperm(perm_heap *heap, const char *name);
/* One persistent pointer, for programs that need no more. */
void *perm_root(perm_heap *heap);
int perm_set_root(perm_heap *heap, void *ptr);

/* 1 when `ptr` lies in the heap's range, else 0. */
int perm_owns(perm_heap *heap, const void *ptr);
/* Walks and proves all of the allocator's tables. */
int perm_check(perm_heap *heap);
int perm_stat(perm_heap *heap, perm_stats *stats);

/* For operator new and delete (pallocator.hpp): the default heap while one is open, else the C
 * library's malloc; freed where it came from. */
void *perm_new(size_t size, size_t alignment);
void perm_delete(void *ptr);

#ifdef __cplusplus
}
#endif

#ifdef PERM_MANGLE
#define malloc perm_malloc
#define calloc perm_calloc
#define realloc perm_realloc
#define reallocarray perm_reallocarray
#define free perm_free
#define posix_memalign perm_posix_memalign
#define aligned_alloc perm_aligned_alloc
#define memalign perm_memalign
#define valloc perm_valloc
#define malloc_usable_size perm_malloc_usable_size
#undef strdup
#define strdup perm_strdup
#undef strndup
#define strndup perm_strndup
#ifdef __cplusplus
namespace std {
/* std::malloc is spelt with the same names. */
using ::perm_aligned_alloc;
using ::perm_calloc;
using ::perm_free;
using ::perm_malloc;
using ::perm_realloc;
}
#endif
#endif

#endif
