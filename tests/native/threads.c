/*
 * Threads that allocate, free each other's blocks and come and go, while the first one commits:
 * `threads make` until it is killed, `threads again` proves that every block is whole.
 */
#include <pthread.h>
#include "check.h"
#include "perm.h"

#define THREADS 4
#define PLACES 2000

/* A block says where it belongs; a place is emptied before its block is freed. */
struct block {
  size_t size;
  unsigned place;
  unsigned char bytes[];
};

PERM struct block *places[PLACES];
PERM unsigned rounds;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int stop;

static void *work(void *seed_pointer) {
  unsigned seed = *(unsigned *)seed_pointer, n;
  for (n = 0; n < 20000 && !stop; n++) {
    struct block *fresh, *old;
    unsigned place;
    seed = seed * 1664525u + 1013904223u;
    place = seed >> 8 & 0xffff;
    place %= PLACES;
    fresh = perm_malloc(sizeof *fresh + (seed >> 24));
    CHECK(fresh != NULL);
    fresh->size = seed >> 24;
    fresh->place = place;
    memset(fresh->bytes, (int)(place & 255), fresh->size);
    pthread_mutex_lock(&lock);
    old = places[place];
    places[place] = fresh;
    pthread_mutex_unlock(&lock);
    perm_free(old);
  }
  return NULL;
}

/* Stops for nobody: a commit finds it anywhere within the allocator. */
static void *churn(void *seed_pointer) {
  unsigned seed = *(unsigned *)seed_pointer, i;
  void *own[64] = {0};
  while (!stop) {
    seed = seed * 1664525u + 1013904223u;
    i = seed >> 10 & 63;
    perm_free(own[i]);
    CHECK((own[i] = perm_malloc(16 + (seed >> 16) % ((seed & 15) ? 500 : 40000))) != NULL);
  }
  for (i = 0; i < 64; i++) perm_free(own[i]);
  return NULL;
}

int main(int argc, char *argv[]) {
  int again = argc > 1 && strcmp(argv[1], "again") == 0;
  unsigned i, k, n, held = 0;
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  CHECK(mopen("threads.heap", again ? "r+" : "w+", 1 << 22) == 0);
  CHECK(perm_check(NULL) == 0);
  for (i = 0; i < PLACES; i++) {
    struct block *block = places[i];
    if (!block) continue;
    held++;
    CHECK(block->place == i);
    for (k = 0; k < block->size; k++) CHECK(block->bytes[k] == (unsigned char)i);
    CHECK(perm_malloc_usable_size(block) >= sizeof *block + block->size);
  }
  if (again) printf("%u rounds, %u blocks whole\n", rounds, held);
  for (k = 0; k < 4; k++) {
    pthread_t threads[THREADS], free_ones[2];
    unsigned seeds[THREADS];
    stop = 0;
    for (i = 0; i < THREADS; i++) {
      seeds[i] = k * THREADS + i + rounds * 77;
      CHECK(pthread_create(&threads[i], NULL, work, &seeds[i]) == 0);
    }
    for (i = 0; i < 2; i++) CHECK(pthread_create(&free_ones[i], NULL, churn, &seeds[i]) == 0);
    for (i = 0; i < 3; i++) {
      /* No thread is between taking a block out of its place and freeing it in what is committed. */
      pthread_mutex_lock(&lock);
      rounds++;
      for (n = 0; n < 4; n++) CHECK(mflush() == 0);
      pthread_mutex_unlock(&lock);
    }
    if (!again && k == 2) {
      printf("%u rounds\n", rounds);
      DIE();
    }
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    stop = 1;
    for (i = 0; i < 2; i++) CHECK(pthread_join(free_ones[i], NULL) == 0);
    CHECK(perm_check(NULL) == 0);
  }
  for (i = 0; i < PLACES; i++) perm_free(places[i]);
  memset(places, 0, sizeof places);
  CHECK(mclose() == 0);
  printf("done\n");
  return 0;
}
