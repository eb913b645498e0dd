/* What the test programs say: nothing when all is well, else the line that was not as expected. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                        \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      printf("%s:%d: not so: %s\n  errno %d, perm_error: %s\n", __FILE__, __LINE__, #condition, \
             errno, perm_error());                                                              \
      fflush(stdout);                                                                           \
      _exit(1);                                                                                 \
    }                                                                                           \
  } while (0)

/* Dies as by kill -9, with nothing flushed. */
#define DIE()                   \
  do {                          \
    fflush(stdout);             \
    kill(getpid(), SIGKILL);    \
  } while (0)
