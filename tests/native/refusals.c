/* What C and POSIX say of bad input, and PERM of wrong order: refused, with a reason, and no harm. */
#include "check.h"
#include "perm.h"

#define REFUSED(call, code) (errno = 0, (call) == -1 && perm_error_code() == (code) && perm_error()[0] && errno != 0)

/* Values that the compiler cannot see through. */
static volatile size_t huge = (size_t)-1, large = (size_t)1 << 62, half = (size_t)1 << 33;

static long value = 3;
static char outside[64];

static void without_a_heap(void) {
  CHECK(REFUSED(mclose(), PERM_NOT_OPEN) && errno == EBADF);
  CHECK(REFUSED(mflush(), PERM_NOT_OPEN));
  CHECK(REFUSED(backup(), PERM_NOT_OPEN));
  CHECK(REFUSED(restore(), PERM_NOT_OPEN));
  CHECK(REFUSED(bopen("r.back", "w+"), PERM_NOT_OPEN));
  CHECK(REFUSED(bclose(), PERM_NOT_OPEN));
  errno = 0;
  CHECK(perm_malloc(1) == NULL && errno == ENOMEM && perm_error_code() == PERM_NOT_OPEN);
  perm_free(NULL);
  perm_free(outside);
  CHECK(perm_default() == NULL && perm_owns(NULL, outside) == 0);
  CHECK(REFUSED(mopen("none.heap", "r+", 0), PERM_NOT_FOUND) && errno == ENOENT);
  CHECK(REFUSED(mopen("none.heap", "r", 0), PERM_NOT_FOUND));
  CHECK(REFUSED(mopen("r.heap", "a", 1 << 20), PERM_INVALID_ARGUMENT) && errno == EINVAL);
  CHECK(REFUSED(mopen("r.heap", NULL, 1 << 20), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(mopen(NULL, "r+", 0), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(mopen("r.heap", "w+", 1), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(mopen("r.heap", "w+", huge), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(mopen("no/such/place/r.heap", "w+", 1 << 20), PERM_NOT_FOUND));
  CHECK(REFUSED(mopen(".", "w+", 1 << 20), PERM_NOT_AN_IMAGE));
}

static void registrations(void) {
  CHECK(perm(NULL, 0) == 0); /* a program without PERM variables */
  CHECK(REFUSED(perm(NULL, 8), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm(&value, 0), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm(&value, huge), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm(&value, half), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm((void *)16, 8), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm((void *)"constant", 4), PERM_INVALID_ARGUMENT));
  CHECK(perm(&value, sizeof value) == 0);
  CHECK(perm(&value, sizeof value) == 0); /* again is no other */
  CHECK(REFUSED(perm(&value, 4), PERM_EXISTS));
  CHECK(REFUSED(unperm(outside), PERM_NOT_FOUND));
  CHECK(REFUSED(perm_named(NULL, outside, 8), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm_named("", outside, 8), PERM_INVALID_ARGUMENT));
  CHECK(perm_named("outside", outside, 8) == 0);
  CHECK(REFUSED(perm_named("outside", outside, 16), PERM_EXISTS));
}

static void memory(void) {
  void *p, *q = outside;
  int i;
  CHECK((errno = 0, perm_malloc(huge)) == NULL && errno == ENOMEM);
  CHECK((errno = 0, perm_malloc(large)) == NULL && errno == ENOMEM && perm_error_code() == PERM_OUT_OF_MEMORY);
  CHECK((errno = 0, perm_calloc(half, half)) == NULL && errno == ENOMEM);
  CHECK((errno = 0, perm_calloc(huge, 2)) == NULL && errno == ENOMEM);
  CHECK((errno = 0, perm_reallocarray(NULL, half, half)) == NULL && errno == ENOMEM);
  CHECK((errno = 0, perm_aligned_alloc(24, 48)) == NULL && errno == EINVAL);
  CHECK((errno = 0, perm_aligned_alloc(0, 48)) == NULL && errno == EINVAL);
  CHECK((errno = 0, perm_aligned_alloc(large, 48)) == NULL && errno == ENOMEM);
  errno = 0;
  CHECK(perm_posix_memalign(&q, 4, 8) == EINVAL && perm_posix_memalign(&q, 48, 8) == EINVAL);
  CHECK(perm_posix_memalign(&q, 0, 8) == EINVAL && perm_posix_memalign(&q, 64, huge) == ENOMEM);
  CHECK(errno == 0 && q == outside);
  CHECK(perm_posix_memalign(&q, 4096, 10) == 0 && (uintptr_t)q % 4096 == 0);
  perm_free(q);

  p = perm_malloc(0);
  q = perm_malloc(0);
  CHECK(p && q && p != q);
  perm_free(p);
  perm_free(q);
  p = perm_malloc(100);
  memset(p, 1, 100);
  CHECK(perm_malloc_usable_size(p) >= 100 && perm_malloc_usable_size(NULL) == 0);
  CHECK((errno = 0, perm_realloc(p, large)) == NULL && errno == ENOMEM && ((char *)p)[99] == 1);
  p = perm_realloc(p, 100000);
  CHECK(p && ((char *)p)[99] == 1);
  CHECK(perm_realloc(p, 0) == NULL);
  p = perm_calloc(50, 20);
  for (i = 0; i < 1000; i++) CHECK(((char *)p)[i] == 0);
  perm_free_sized(p, 1000);
  p = perm_strndup("harbour", 4);
  CHECK(strcmp(p, "harb") == 0);

  perm_clear_error();
  CHECK(perm_error_code() == PERM_OK && perm_error()[0] == 0);
  errno = 77;
  perm_free(outside);
  CHECK(perm_error_code() == PERM_BAD_POINTER);
  perm_free((char *)p + 1);
  CHECK(perm_error_code() == PERM_BAD_POINTER);
  perm_free((void *)-16);
  CHECK(perm_error_code() == PERM_BAD_POINTER);
  perm_free(p);
  perm_free(p);
  CHECK(perm_error_code() == PERM_DOUBLE_FREE && errno == 77);
  CHECK(perm_realloc(p, 10) == NULL && perm_realloc(outside, 10) == NULL);
  CHECK(perm_malloc_usable_size(outside) == 0);
  CHECK(perm_check(NULL) == 0);
}

static void files(void) {
  perm_heap *gone = perm_default();
  FILE *notes;
  CHECK(mopen("other.heap", "w+", 1 << 20) == -2 && perm_error_code() == PERM_ALREADY_OPEN);
  CHECK(REFUSED(backup(), PERM_NOT_OPEN));
  CHECK(REFUSED(restore(), PERM_NOT_OPEN));
  CHECK(REFUSED(bopen("none.back", "r+"), PERM_NOT_FOUND));
  CHECK(REFUSED(bopen("r.back", "x"), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(bopen(NULL, "w+"), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(bopen("r.heap", "w+"), PERM_ALREADY_OPEN));
  notes = fopen("notes.txt", "w");
  fputs("not an image, and not to be lost", notes);
  fclose(notes);
  CHECK(REFUSED(bopen("notes.txt", "w+"), PERM_EXISTS) && errno == EEXIST);
  CHECK(REFUSED(bopen("notes.txt", "r+"), PERM_NOT_AN_IMAGE));
  CHECK(bopen("r.back", "w+") == 0);
  CHECK(bopen("r.back", "w+") == -2 && bopen("other.back", "w+") == -2);
  CHECK(REFUSED(restore(), PERM_NO_COMMIT)); /* nothing was backed up yet */
  CHECK(value == 5);
  CHECK(REFUSED(perm_heap_close(gone), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm(perm_malloc(8), 8), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm_restore(NULL, 7, 0, NULL), PERM_INVALID_ARGUMENT));
  CHECK(REFUSED(perm_restore(NULL, PERM_MAP, 999, NULL), PERM_NO_EPOCH));
  CHECK(perm_global(NULL, "g", 0) == NULL && perm_error_code() == PERM_INVALID_ARGUMENT);
  CHECK(perm_global(NULL, "g", 8) != NULL);
  CHECK(perm_global(NULL, "g", 16) == NULL && perm_error_code() == PERM_BLOCK_MISMATCH);
  CHECK(REFUSED(perm_set_root(NULL, outside), PERM_BAD_POINTER));
  CHECK(mclose() == 0 && bclose() == 0);
  CHECK(REFUSED(mclose(), PERM_NOT_OPEN));
  /* The handle of a heap that is open no more, and numbers that never were one. */
  CHECK(mopen("r.heap", "r+", 0) == 0 && value == 5 && mclose() == 0);
  CHECK(mopen(NULL, "w+", 0) == 0);
  CHECK(REFUSED(perm_check(gone), PERM_CLOSED));
  CHECK(REFUSED(perm_check((perm_heap *)outside), PERM_CLOSED));
  CHECK(perm_heap_malloc((perm_heap *)-1, 8) == NULL && perm_error_code() == PERM_CLOSED);
}

/* Numbers that are no pointers and no handles, near the heap and anywhere. */
static void junk(void) {
  uint64_t state = 88172645463325252u, base = (uint64_t)(uintptr_t)perm_malloc(64);
  void *kept = (void *)(uintptr_t)base;
  perm_stats before, after;
  int i;
  CHECK(perm_stat(NULL, &before) == 0);
  for (i = 0; i < 200000; i++) {
    void *pointer;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    /* An odd address is no block's. */
    pointer = (void *)(uintptr_t)((i % 4 ? base + (state & 0xffffff) - 0x800000 : state) | 1);
    switch (i % 5) {
      case 0: perm_free(pointer); break;
      case 1: CHECK(perm_realloc(pointer, state & 0xfff) == NULL); break;
      case 2: CHECK(perm_malloc_usable_size(pointer) == 0); break;
      case 3: CHECK(perm_heap_free((perm_heap *)pointer, kept) == -1); break;
      default: CHECK(perm_heap_malloc((perm_heap *)pointer, 8) == NULL && !perm_owns((perm_heap *)pointer, kept));
    }
  }
  CHECK(perm_stat(NULL, &after) == 0 && after.live_blocks == before.live_blocks);
  perm_clear_error();
  perm_free(kept);
  CHECK(perm_error_code() == PERM_OK && perm_check(NULL) == 0);
}

/* A heap that may not grow: full is ENOMEM, and it goes on when something was freed. */
static void full(void) {
  static void *blocks[20000];
  perm_options options = PERM_OPTIONS;
  perm_heap *heap;
  int count = 0, i;
  options.size = options.max_size = 1 << 20;
  heap = perm_heap_open(&options);
  CHECK(heap != NULL);
  errno = 0;
  while (count < 20000 && (blocks[count] = perm_heap_malloc(heap, 100)) != NULL) count++;
  CHECK(count > 8000 && count < 11000 && errno == ENOMEM && perm_error_code() == PERM_OUT_OF_MEMORY);
  CHECK(perm_heap_malloc(heap, 1 << 19) == NULL && perm_heap_calloc(heap, 1, 1 << 21) == NULL);
  CHECK(perm_check(heap) == 0);
  for (i = 0; i < count; i++) CHECK(perm_heap_free(heap, blocks[i]) == 0);
  CHECK(perm_heap_free(heap, blocks[0]) == -1 && perm_error_code() == PERM_DOUBLE_FREE);
  blocks[0] = perm_heap_malloc(heap, 1 << 19);
  CHECK(blocks[0] != NULL && perm_check(heap) == 0);
  CHECK(perm_heap_close(heap) == 0);
}

int main(void) {
  perm_options wrong = PERM_OPTIONS;
  without_a_heap();
  registrations();
  value = 4;
  CHECK(mopen("r.heap", "w+", 1 << 20) == 0);
  value = 5;
  memory();
  junk();
  files();
  wrong.struct_size = 8;
  CHECK(perm_heap_open(&wrong) == NULL && perm_error_code() == PERM_INVALID_ARGUMENT);
  CHECK(perm_heap_open(NULL) == NULL);
  full();
  printf("all refused\n");
  return 0;
}
