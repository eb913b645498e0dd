/*
 * A program as PERM's users write them: a state in the heap, found again by a PERM global, backed up
 * after each step. `voyage` sets out, `voyage -r` goes on from the last backup.
 */
#include "check.h"
#include "perm.h"

#define MAP_FILE "voyage.mmap"
#define BACK_FILE "voyage.back"
#define MAP_SIZE ((size_t)1 << 23)
#define LAST_STEP 6

struct stop {
  struct stop *before;
  int number;
  char *name;
};

struct state {
  int steps;
  struct stop *last;
};

PERM struct state *home;
PERM int distance[8];

static int goes_back_to(const struct stop *stop, int number) {
  for (; stop; stop = stop->before, number--) {
    char name[32];
    snprintf(name, sizeof name, "harbour %d", number);
    if (stop->number != number || strcmp(stop->name, name) != 0) return 0;
  }
  return number == 0;
}

int main(int argc, char *argv[]) {
  int again = argc > 1 && strcmp("-r", argv[1]) == 0;
  int end_at = argc > 2 ? atoi(argv[2]) : LAST_STEP + 1;
  const char *mode = again ? "r+" : "w+";

  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  CHECK(mopen(MAP_FILE, mode, MAP_SIZE) == 0);
  CHECK(bopen(BACK_FILE, mode) == 0);
  if (again) {
    CHECK(restore() == 0);
    printf("restored at step %d\n", home->steps);
  } else {
    CHECK(home == NULL && distance[1] == 0);
    home = malloc(sizeof *home);
    CHECK(home != NULL);
    home->steps = 0;
    home->last = NULL;
    CHECK(mflush() == 0 && backup() == 0);
  }

  while (home->steps < LAST_STEP) {
    char name[32];
    struct stop *stop = malloc(sizeof *stop);
    CHECK(stop != NULL && goes_back_to(home->last, home->steps));
    snprintf(name, sizeof name, "harbour %d", home->steps + 1);
    stop->number = home->steps + 1;
    stop->name = strdup(name);
    stop->before = home->last;
    home->last = stop;
    if (stop->number == end_at) DIE(); /* half a step: nobody will see it */
    home->steps++;
    distance[home->steps] = distance[home->steps - 1] + home->steps;
    printf("step %d, distance %d\n", home->steps, distance[home->steps]);
    CHECK(backup() == 0);
  }

  CHECK(goes_back_to(home->last, LAST_STEP) && perm_check(NULL) == 0);
  while (home->last) {
    struct stop *stop = home->last;
    home->last = stop->before;
    free(stop->name);
    free(stop);
  }
  free(home);
  CHECK(perm_error_code() == PERM_OK);
  CHECK(mclose() == 0);
  CHECK(bclose() == 0);
  printf("arrived\n");
  return 0;
}
