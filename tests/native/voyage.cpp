// The same in C++: an object with a constructor, a destructor and a container of its own in the heap.
#include "check.h"
#include <iostream>
#include <list>
#include "pallocator.hpp"

#define MAP_FILE "voyage.mmap"
#define BACK_FILE "voyage.back"
#define MAP_SIZE ((size_t)1 << 23)

class voyage {
 public:
  int step;
  std::list<int, PERM_NS::allocator<int> > log;
  voyage() : step(1) { std::cout << "built" << std::endl; }
  ~voyage() { std::cout << "destroyed" << std::endl; }
};

PERM voyage *home;

int main(int argc, char *argv[]) {
  bool again = argc > 1 && strcmp("-r", argv[1]) == 0;
  int end_at = argc > 2 ? atoi(argv[2]) : 0;
  const char *mode = again ? "r+" : "w+";

  perm(PERM_START, PERM_SIZE);
  CHECK(mopen(MAP_FILE, mode, MAP_SIZE) == 0);
  CHECK(bopen(BACK_FILE, mode) == 0);
  if (again) {
    CHECK(restore() == 0);
    CHECK(home->log.size() == size_t(home->step - 1));
    std::cout << "restored at step " << home->step << std::endl;
  } else {
    home = PERM_NEW(voyage);
    CHECK(mflush() == 0 && backup() == 0);
  }

  while (home->step <= 5) {
    home->log.push_back(home->step);
    if (home->step == end_at) DIE();
    std::cout << "step " << home->step << std::endl;
    home->step++;
    CHECK(backup() == 0);
  }
  int expected = 1;
  for (int logged : home->log) CHECK(logged == expected++);

  PERM_DELETE(home, voyage);
  CHECK(perm_error_code() == PERM_OK);
  CHECK(mclose() == 0);
  CHECK(bclose() == 0);
  return 0;
}
