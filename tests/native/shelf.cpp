// The containers of C++ in the heap, made and changed until the program is killed, then gone through.
#include "check.h"
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>
#include "pallocator.hpp"

template <typename T>
using in_perm = PERM_NS::allocator<T>;
using text = std::basic_string<char, std::char_traits<char>, in_perm<char> >;
using texts = std::vector<text, in_perm<text> >;
using counts = std::map<text, int, std::less<text>, in_perm<std::pair<const text, int> > >;

struct text_hash {
  size_t operator()(const text &of) const {
    size_t hash = 5381;
    for (char c : of) hash = hash * 33 + static_cast<unsigned char>(c);
    return hash;
  }
};
using letters = std::unordered_map<text, texts, text_hash, std::equal_to<text>, in_perm<std::pair<const text, texts> > >;

struct alignas(64) wide {
  char bytes[64];
};

struct shelf {
  std::list<text, in_perm<text> > order;
  counts by_name;
  letters by_letter;
  texts titles;
  std::vector<wide, in_perm<wide> > wides;
};

struct counted {
  static int alive;
  int value;
  explicit counted(int with) : value(with) {
    if (with < 0) throw 1;
    alive++;
  }
  ~counted() { alive--; }
};
int counted::alive;

PERM shelf *home;
// A container that is itself a global: built before main, filled by mopen, destroyed after mclose.
PERM std::list<int, in_perm<int> > numbers;

static text title(int i) { return text("the book that bears the number ") + text(std::to_string(i).c_str()); }

static void put(int i) {
  text name = title(i);
  home->order.push_back(name);
  home->by_name[name] = i;
  home->by_letter[text(1, static_cast<char>('a' + i % 26))].push_back(name);
  home->titles.push_back(name);
  home->wides.push_back(wide());
  numbers.push_back(i);
}

static void compare(int count) {
  CHECK(home->order.size() == size_t(count) && home->by_name.size() == size_t(count));
  CHECK(home->titles.size() == size_t(count) && numbers.size() == size_t(count));
  int i = 0;
  for (const text &name : home->order) CHECK(name == title(i++));
  for (i = 0; i < count; i++) CHECK(home->by_name.at(title(i)) == i && home->titles[size_t(i)] == title(i));
  i = 0;
  for (int number : numbers) CHECK(number == i++);
  size_t indexed = 0;
  for (const auto &entry : home->by_letter) indexed += entry.second.size();
  CHECK(indexed == size_t(count));
  CHECK(reinterpret_cast<uintptr_t>(home->wides.data()) % 64 == 0);
}

static uint64_t live_blocks() {
  perm_stats stats;
  CHECK(perm_stat(nullptr, &stats) == 0);
  return stats.live_blocks;
}

// Containers give back what they took, also what their elements took.
static void come_and_go() {
  texts some;
  for (int i = 0; i < 100; i++) some.push_back(title(i));
  texts others(some), moved(std::move(some));
  others.erase(others.begin(), others.begin() + 50);
  swap(others, moved);
  CHECK(moved.size() == 50 && others.size() == 100 && others[99] == title(99));
  std::list<text, in_perm<text> > order(others.begin(), others.end());
  order.remove(title(3));
  counts numbered;
  for (const text &name : order) numbered[name] = 1;
  numbered.erase(title(4));
  CHECK(order.size() == 99 && numbered.size() == 98);
}

static void objects() {
  CHECK(counted::alive == 0);
  uint64_t blocks = live_blocks();
  come_and_go();
  CHECK(live_blocks() == blocks);
  counted *one = PERM_NEW(counted)(7);
  CHECK(one->value == 7 && counted::alive == 1 && perm_owns(nullptr, one));
  PERM_DELETE(one, counted);
  CHECK(counted::alive == 0);
  try {
    one = PERM_NEW(counted)(-1);
    CHECK(false);
  } catch (int) {
  }
  CHECK(live_blocks() == blocks);
  wide *aligned = PERM_NEW(wide);
  CHECK(reinterpret_cast<uintptr_t>(aligned) % 64 == 0);
  PERM_FREE(aligned);
  PERM_DELETE(static_cast<counted *>(nullptr), counted);
  CHECK(counted::alive == 0);
  in_perm<text> allocator;
  bool refused = false;
  try {
    allocator.deallocate(allocator.allocate(size_t(1) << 50), 0);
  } catch (const std::bad_alloc &) {
    refused = true;
  }
  CHECK(refused);
  refused = false;
  try {
    allocator.deallocate(allocator.allocate(size_t(-1) / sizeof(text) + 2), 0);
  } catch (const std::bad_alloc &) {
    refused = true;
  }
  CHECK(refused && allocator == in_perm<int>() && !(allocator != in_perm<int>()));
  CHECK(live_blocks() == blocks);
  CHECK(perm_error_code() == PERM_OUT_OF_MEMORY);
  perm_clear_error();
}

int main(int argc, char *argv[]) {
  bool again = argc > 1 && strcmp(argv[1], "-r") == 0;
  CHECK(perm(PERM_START, PERM_SIZE) == 0);
  CHECK(mopen("shelf.heap", again ? "r+" : "w+", 1 << 22) == 0);
  if (!again) {
    home = PERM_NEW(shelf);
    for (int i = 0; i < 500; i++) put(i);
    CHECK(mflush() == 0);
    for (int i = 500; i < 900; i++) put(i);
    home->by_name.clear();
    printf("put\n");
    DIE();
  }
  compare(500);
  objects();
  for (int i = 500; i < 700; i++) put(i);
  compare(700);
  PERM_DELETE(home, shelf);
  home = nullptr;
  CHECK(perm_error_code() == PERM_OK && perm_check(nullptr) == 0);
  CHECK(mclose() == 0);
  printf("compared\n");
  return 0;
}
