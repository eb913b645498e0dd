/* A forked child has its own copy: it may change it, not commit it; the parent sees nothing of that. */
#include <pthread.h>
#include <sys/wait.h>
#include "check.h"
#include "perm.h"

PERM int number;

static volatile int stop;

static void *churn(void *unused) {
  while (!stop) perm_free(perm_malloc(100 + (size_t)(uintptr_t)&unused % 200));
  return NULL;
}

static void *once(void *unused) {
  perm_free(perm_malloc(500));
  return unused;
}

int main(void) {
  pthread_t thread;
  int i, status;
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  CHECK(mopen("fork.heap", "w+", 1 << 20) == 0);
  CHECK(pthread_create(&thread, NULL, churn, NULL) == 0);
  for (i = 0; i < 100; i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      void *mine = perm_malloc(1000);
      number = 1000;
      CHECK(mine != NULL && perm_check(NULL) == 0);
      CHECK(mflush() == -1 && perm_error_code() == PERM_FORKED && errno == EPERM);
      perm_free(mine);
      /* A thread of its own is not kept out by what went on in the parent. */
      alarm(30);
      CHECK(pthread_create(&thread, NULL, once, NULL) == 0 && pthread_join(thread, NULL) == 0);
      _exit(9);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    CHECK(number == i);
    number = i + 1;
    if (i % 10 == 0) CHECK(mflush() == 0);
  }
  stop = 1;
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(perm_check(NULL) == 0 && mclose() == 0);
  CHECK(mopen("fork.heap", "r+", 0) == 0 && number == 100);
  printf("forked\n");
  return 0;
}
