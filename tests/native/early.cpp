// All of new and delete in a heap that the environment names: opened by the first object that is made,
// before main, and committed at exit, when that object is gone again.
#define PERM_OVERRIDE_NEW
#include "check.h"
#include <map>
#include <string>
#include "pallocator.hpp"

static std::string early("a text that was too long for the string itself before main began");

PERM std::map<std::string, int> *home;

int main() {
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  if (!home) home = new std::map<std::string, int>;
  std::string key = "a key that does not fit into the string itself, number " + std::to_string(home->size());
  CHECK(home->count(key) == 0);
  (*home)[key] = int(home->size());
  CHECK(!perm_default() || perm_check(nullptr) == 0);
  printf("%d keys, early %s\n", int(home->size()), perm_owns(nullptr, early.data()) ? "in the heap" : "elsewhere");
  return 0;
}
