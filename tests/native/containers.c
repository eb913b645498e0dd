/*
 * `containers print FILE` tells all that TypeScript left in a heap, a line a value; `containers change
 * FILE` changes values in place and commits. tests/data_native_test.ts knows what is there.
 */
#include <inttypes.h>
#include <stdbool.h>

#include "check.h"
#include "containers.h"
#include "perm.h"

struct place {
  double x, y, z;
};

struct item {
  uint32_t id;
  int8_t small;
  bool ok;
  uint64_t big;
  int64_t when;
  uint64_t far;
  float ratio;
  struct place at;
  char tag[12];
  struct text name;
  int16_t scores[5];
  struct item *next;
};

struct shelf {
  struct vec items, numbers;
  struct list names;
  struct hash_map by_number, by_u64, by_i64, by_name;
  struct ordered_map by_weight, by_time, by_word;
  struct long_text story;
  struct item *first;
};

static void print_bits(double number) {
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  printf(" %016" PRIx64, bits);
}

static void print_text(const struct text *text) {
  printf(" %.*s", (int)text_length(text), text_bytes(text));
}

static void print_item(const char *what, const struct item *item) {
  int i;
  printf("%s %" PRIu32 " %d %d %" PRIu64 " %" PRId64 " %" PRIu64, what, item->id, item->small,
         item->ok, item->big, item->when, item->far);
  print_bits(item->ratio);
  print_bits(item->at.x);
  print_bits(item->at.y);
  print_bits(item->at.z);
  printf(" %.12s", item->tag);
  print_text(&item->name);
  for (i = 0; i < 5; i++) printf(" %d", item->scores[i]);
  printf(" next %" PRId64 "\n", item->next == NULL ? -1 : (int64_t)item->next->id);
}

static void print_roots(const struct roots *roots) {
  const struct root *root;
  for (root = roots->first; root != NULL; root = root->next) {
    printf("root");
    print_text(&root->name);
    printf(" %016" PRIx64, root->hash);
    print_text(&root->schema);
    printf("\n");
  }
}

static void print_hash_maps(const struct shelf *shelf) {
  struct entry *entry;
  uint32_t prev = 0;
  for (entry = entry_first(&shelf->by_number); entry; entry = entry_next(&shelf->by_number, entry)) {
    CHECK(entry_find(&shelf->by_number, &entry->key) == entry);
    CHECK(entry->prev == prev);
    prev = prev == 0 ? shelf->by_number.first : entry_at(&shelf->by_number, prev - 1)->next;
    printf("number %.17g:", entry->key.number);
    print_item("", entry_value(&shelf->by_number, entry));
  }
  CHECK(prev == shelf->by_number.last);
  for (entry = entry_first(&shelf->by_u64); entry; entry = entry_next(&shelf->by_u64, entry)) {
    CHECK(entry_find(&shelf->by_u64, &entry->key) == entry);
    printf("u64 %" PRIu64 ": %" PRIu32 "\n", entry->key.u64,
           *(uint32_t *)entry_value(&shelf->by_u64, entry));
  }
  for (entry = entry_first(&shelf->by_i64); entry; entry = entry_next(&shelf->by_i64, entry)) {
    CHECK(entry_find(&shelf->by_i64, &entry->key) == entry);
    printf("i64 %" PRId64 ": %d\n", entry->key.i64, *(bool *)entry_value(&shelf->by_i64, entry));
  }
  for (entry = entry_first(&shelf->by_name); entry; entry = entry_next(&shelf->by_name, entry)) {
    const struct place *place = entry_value(&shelf->by_name, entry);
    if (text_length(&entry->key.text) <= 15) {
      CHECK(entry_find(&shelf->by_name, &entry->key.text) == entry);
    }
    printf("name");
    print_text(&entry->key.text);
    print_bits(place->x);
    print_bits(place->y);
    print_bits(place->z);
    printf("\n");
  }
}

static void print_ordered_maps(const struct shelf *shelf) {
  const struct number_leaf *leaf, *last = NULL;
  const struct text_leaf *words;
  uint32_t i;
  CHECK(shelf->by_weight.height >= 2);
  for (leaf = shelf->by_weight.first; leaf != NULL; last = leaf, leaf = leaf->next) {
    CHECK(leaf->prev == last);
    for (i = 0; i < leaf->count; i++) {
      uint32_t *value = ordered_value(&shelf->by_weight, leaf->places[i]);
      CHECK(ordered_find_number(&shelf->by_weight, leaf->keys[i]) == value);
      CHECK(stored_number(number_of(leaf->keys[i])) == leaf->keys[i]);
      printf("weight");
      print_bits(number_of(leaf->keys[i]));
      printf(": %" PRIu32 "\n", *value);
    }
  }
  CHECK(last == shelf->by_weight.last);
  for (leaf = shelf->by_time.first; leaf != NULL; leaf = leaf->next) {
    for (i = 0; i < leaf->count; i++) {
      int64_t key = (int64_t)(leaf->keys[i] ^ 1ull << 63);
      printf("time %" PRId64 ":", key);
      print_text(ordered_value(&shelf->by_time, leaf->places[i]));
      printf("\n");
    }
  }
  CHECK(shelf->by_word.height >= 1);
  for (words = shelf->by_word.first; words != NULL; words = words->next) {
    for (i = 0; i < words->count; i++) {
      uint16_t *value = ordered_value(&shelf->by_word, words->places[i]);
      CHECK(ordered_find_text(&shelf->by_word, &words->keys[i]) == value);
      printf("word");
      print_text(&words->keys[i]);
      printf(": %u\n", *value);
    }
  }
}

static void print_shelf(const struct shelf *shelf) {
  const struct item *items = shelf->items.data;
  const double *numbers = shelf->numbers.data;
  struct list_node *node;
  uint64_t i, nodes = 0;
  CHECK(value_size_of(shelf->items.shape) == sizeof(struct item));
  for (i = 0; i < shelf->items.length; i++) print_item("item", &items[i]);
  for (i = 0; i < shelf->numbers.length; i++) {
    printf("double");
    print_bits(numbers[i]);
    printf("\n");
  }
  for (node = shelf->names.first; node != NULL; node = node->next, nodes++) {
    printf("listed");
    print_text(list_value(node));
    printf("\n");
  }
  CHECK(nodes == shelf->names.length);
  for (node = shelf->names.last; node != NULL; node = node->prev) nodes--;
  CHECK(nodes == 0);
  print_hash_maps(shelf);
  print_ordered_maps(shelf);
  printf("story %" PRIu64 " %.*s\n", shelf->story.units, (int)shelf->story.length,
         shelf->story.data);
  print_item("first", shelf->first);
}

/* Gives a text slot another text, and frees what it had. */
static void set_text(perm_heap *heap, struct text *slot, const char *text) {
  size_t length = strlen(text);
  if ((unsigned char)slot->as.bytes[15] == 255) {
    CHECK(perm_heap_free(heap, (void *)(uintptr_t)slot->as.outside.address) == 0);
  }
  memset(slot, 0, sizeof *slot);
  if (length <= 15) {
    memcpy(slot->as.bytes, text, length);
    slot->as.bytes[15] = (char)length;
  } else {
    char *block = perm_heap_malloc(heap, length);
    CHECK(block != NULL);
    memcpy(block, text, length);
    slot->as.outside.address = block;
    slot->as.outside.length = (uint32_t)length;
    slot->as.bytes[15] = (char)255;
  }
}

static void change(perm_heap *heap, struct shelf *shelf) {
  struct item *items = shelf->items.data;
  double *numbers = shelf->numbers.data;
  struct entry *entry;
  struct text key;
  struct item *made;
  double seven = 7;
  uint64_t i;
  for (i = 0; i < shelf->items.length; i += 3) {
    items[i].id += 1000;
    items[i].small = -5;
    items[i].ok = !items[i].ok;
    items[i].big ^= 1ull << 63;
    items[i].when = -items[i].when;
    items[i].at.y += 0.5;
    items[i].scores[4] = (int16_t)i;
    memset(items[i].tag, 0, sizeof items[i].tag);
    memcpy(items[i].tag, "twelve bytes", 12);
    set_text(heap, &items[i].name, i % 2 ? "by C" : "written by a program in C");
  }
  for (i = 0; i < shelf->numbers.length; i++) numbers[i] *= 2;
  set_text(heap, list_value(shelf->names.last), "the last of all of them");

  entry = entry_find(&shelf->by_number, &seven);
  CHECK(entry != NULL);
  ((struct item *)entry_value(&shelf->by_number, entry))->at.z = 7.25;
  memset(&key, 0, sizeof key);
  set_text(heap, &key, "name 40");
  entry = entry_find(&shelf->by_name, &key);
  CHECK(entry != NULL);
  ((struct place *)entry_value(&shelf->by_name, entry))->x = -12;
  *(uint32_t *)ordered_find_number(&shelf->by_weight, stored_number(-0.5)) = 4242;
  set_text(heap, &key, "word 0033 and some more");
  *(uint16_t *)ordered_find_text(&shelf->by_word, &key) = 33;
  set_text(heap, &key, "");

  made = perm_heap_calloc(heap, 1, sizeof *made);
  CHECK(made != NULL);
  made->id = 77;
  made->next = shelf->first;
  set_text(heap, &made->name, "an object that C made");
  shelf->first = made;
  CHECK(perm_commit(heap, PERM_MAP, NULL) == 0);
}

int main(int argc, char *argv[]) {
  perm_options options = PERM_OPTIONS;
  perm_heap *heap;
  struct roots *roots;
  struct shelf *shelf;
  bool changes = argc == 3 && strcmp(argv[1], "change") == 0;
  options.path = argc == 3 ? argv[2] : "";
  options.mode = changes ? "r+" : "r";
  heap = perm_heap_open(&options);
  CHECK(heap != NULL);
  roots = perm_global(heap, "@perm/heap/data", sizeof *roots);
  CHECK(roots != NULL && roots->version == 1);
  shelf = root_named(roots, "shelf");
  CHECK(shelf != NULL);
  if (changes) {
    change(heap, shelf);
  } else {
    print_roots(roots);
    print_shelf(shelf);
  }
  CHECK(perm_heap_close(heap) == 0);
  return 0;
}
