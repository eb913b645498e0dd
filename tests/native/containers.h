/*
 * Typed data as docs/data.md and docs/containers.md lay it out, for programs in C that read it and
 * change values in place. Nothing here calls the library, and nothing is checked: damage in a heap
 * leads where it leads. Containers are changed (inserted into, grown) from TypeScript.
 */
#ifndef CONTAINERS_H
#define CONTAINERS_H 1

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---------------------------------------------------------------- text and roots */

struct text {
  union {
    struct {
      const char *address;
      uint32_t length;
    } outside;
    char bytes[16]; /* the last one is the tag */
    uint64_t words[2];
  } as;
};

struct root {
  struct text name, schema;
  uint64_t hash;
  void *object;
  struct root *next;
};

/* What perm_global(heap, "@perm/heap/data", 16) gives. */
struct roots {
  uint32_t version, zero;
  struct root *first;
};

static inline size_t text_length(const struct text *text) {
  unsigned tag = (unsigned char)text->as.bytes[15];
  return tag <= 15 ? tag : text->as.outside.length;
}

static inline const char *text_bytes(const struct text *text) {
  return (unsigned char)text->as.bytes[15] <= 15 ? text->as.bytes : text->as.outside.address;
}

static inline void *root_named(const struct roots *roots, const char *name) {
  const struct root *root;
  for (root = roots->first; root != NULL; root = root->next) {
    if (text_length(&root->name) == strlen(name) &&
        memcmp(text_bytes(&root->name), name, strlen(name)) == 0)
      return root->object;
  }
  return NULL;
}

/* ---------------------------------------------------------------- containers */

struct vec {
  uint64_t shape;
  void *data;
  uint64_t length, capacity;
  uint32_t changes, zero;
};

struct list_node {
  struct list_node *next, *prev;
  /* The value. */
};

struct list {
  uint64_t shape;
  struct list_node *first, *last;
  uint64_t length;
  uint32_t changes, zero;
};

struct long_text {
  uint64_t shape;
  char *data;
  uint64_t length, capacity;
  uint32_t changes, zero;
  uint64_t units;
};

struct segment {
  char *address;
  uint32_t live, used, free, zero;
};

struct pool {
  struct segment *directory;
  uint32_t length, open, spare, zero;
};

struct entry {
  uint32_t next, prev;
  union {
    double number;
    uint64_t u64;
    int64_t i64;
    struct text text;
  } key; /* as many bytes as its kind has; the value follows */
};

struct hash_map {
  uint64_t shape;
  uint32_t length, changes;
  uint32_t *index;
  uint8_t index_bits, entry_bits;
  uint16_t zero;
  uint32_t used, first, last;
  uint64_t seed;
  struct pool pool;
};

struct number_leaf {
  uint32_t count, zero;
  struct number_leaf *next, *prev;
  uint64_t keys[82];
  uint32_t places[82];
};

struct number_inner {
  uint32_t count, zero;
  void *children[64];
  uint64_t keys[63];
};

struct text_leaf {
  uint32_t count, zero;
  struct text_leaf *next, *prev;
  struct text keys[50];
  uint32_t places[50];
};

struct text_inner {
  uint32_t count, zero;
  void *children[43];
  struct text keys[42];
};

struct ordered_map {
  uint64_t shape;
  uint32_t length, changes;
  void *root, *first, *last;
  uint32_t height, zero;
  struct pool pool;
};

_Static_assert(sizeof(struct text) == 16 && sizeof(struct root) == 56, "text, roots");
_Static_assert(sizeof(struct vec) == 40 && sizeof(struct list) == 40, "Vec, List");
_Static_assert(sizeof(struct long_text) == 48 && sizeof(struct segment) == 24, "Text, pool");
_Static_assert(sizeof(struct hash_map) == 72 && sizeof(struct ordered_map) == 72, "maps");
_Static_assert(sizeof(struct number_leaf) <= 1024 && sizeof(struct text_leaf) <= 1024, "leaves");
_Static_assert(sizeof(struct number_inner) <= 1024 && sizeof(struct text_inner) <= 1024, "nodes");

enum keys { NUMBER_KEYS = 0, U64_KEYS = 1, I64_KEYS = 2, TEXT_KEYS = 3 };

static inline enum keys keys_of(uint64_t shape) { return (enum keys)(shape & 15); }
static inline uint32_t value_size_of(uint64_t shape) { return (uint32_t)(shape >> 20); }
static inline size_t key_size_of(uint64_t shape) { return keys_of(shape) == TEXT_KEYS ? 16 : 8; }
static inline size_t rounded(size_t size) { return (size + 7) & ~(size_t)7; }

static inline void *list_value(struct list_node *node) { return node + 1; }

static inline void *pool_at(const struct pool *pool, size_t stride, uint32_t place) {
  uint64_t x = (uint64_t)place + 8;
  unsigned shift = 61 - (unsigned)__builtin_clzll(x);
  struct segment *segment = &pool->directory[4 * (shift - 1) + (x >> shift & 3)];
  return segment->address + (x & ((1ull << shift) - 1)) * stride;
}

/* ---------------------------------------------------------------- HashMap */

static inline struct entry *entry_at(const struct hash_map *map, uint32_t number) {
  size_t stride = 8 + key_size_of(map->shape) + rounded(value_size_of(map->shape));
  return (struct entry *)pool_at(&map->pool, stride, number);
}

/* The first entry, and the one after another, in the order in which keys were first set. */
static inline struct entry *entry_first(const struct hash_map *map) {
  return map->first == 0 ? NULL : entry_at(map, map->first - 1);
}

static inline struct entry *entry_next(const struct hash_map *map, const struct entry *entry) {
  return entry->next == 0 ? NULL : entry_at(map, entry->next - 1);
}

static inline void *entry_value(const struct hash_map *map, struct entry *entry) {
  return (char *)&entry->key + key_size_of(map->shape);
}

static inline uint64_t hash_of_bits(uint64_t seed, uint64_t bits) {
  uint64_t k = bits ^ seed;
  uint32_t l = (uint32_t)k * 0x9e3779b1u;
  uint32_t h;
  l ^= l >> 15;
  h = (uint32_t)(k >> 32) ^ l;
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  h ^= h >> 16;
  return (uint64_t)h << 32 | h;
}

static inline uint64_t folded(uint64_t a, uint64_t b) {
  unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Of text of up to 15 bytes; what is longer is hashed by wyhash. */
static inline uint64_t hash_of_short(uint64_t seed, const struct text *text) {
  uint64_t inner = folded(text->as.words[0] ^ 0xa0761d6478bd642full,
                          text->as.words[1] ^ seed ^ 0xe7037ed1a0b428dbull);
  return folded(inner, seed ^ 0x8ebc6af09c88c6e3ull);
}

/* The entry of a key: of 8 bytes (a double's, for numbers), or short text. NULL when there is none. */
static inline struct entry *entry_find(const struct hash_map *map, const void *key) {
  int is_text = keys_of(map->shape) == TEXT_KEYS;
  uint32_t mask = (uint32_t)((1ull << map->index_bits) - 1);
  uint32_t entry_mask = (uint32_t)((1ull << map->entry_bits) - 1);
  uint64_t bits, hash;
  uint32_t at;
  memcpy(&bits, key, 8);
  hash = is_text ? hash_of_short(map->seed, (const struct text *)key) : hash_of_bits(map->seed, bits);
  for (at = (uint32_t)hash & mask; map->index != NULL && map->index[at] != 0; at = (at + 1) & mask) {
    uint32_t slot = map->index[at];
    struct entry *entry;
    if ((slot & entry_mask) < 2 || ((slot ^ (uint32_t)(hash >> 32)) & ~entry_mask) != 0) continue;
    entry = entry_at(map, (slot & entry_mask) - 2);
    if (memcmp(&entry->key, key, key_size_of(map->shape)) == 0) return entry;
  }
  return NULL;
}

/* ---------------------------------------------------------------- OrderedMap */

/* A number as it is stored in a key, and back. */
static inline uint64_t stored_number(double number) {
  uint64_t bits, sign = 1ull << 63;
  memcpy(&bits, &number, 8);
  return bits & sign ? ~bits : bits | sign;
}

static inline double number_of(uint64_t stored) {
  uint64_t sign = 1ull << 63, bits = stored & sign ? stored & ~sign : ~stored;
  double number;
  memcpy(&number, &bits, 8);
  return number;
}

static inline void *ordered_value(const struct ordered_map *map, uint32_t place) {
  size_t stride = rounded(value_size_of(map->shape));
  return pool_at(&map->pool, stride < 8 ? 8 : stride, place);
}

/* The value of a number in its stored form, NULL when there is none. */
static inline void *ordered_find_number(const struct ordered_map *map, uint64_t stored) {
  const void *node = map->root;
  const struct number_leaf *leaf;
  uint32_t i, level;
  if (node == NULL) return NULL;
  for (level = 0; level < map->height; level++) {
    const struct number_inner *inner = (const struct number_inner *)node;
    for (i = 0; i < inner->count && inner->keys[i] <= stored;) i++;
    node = inner->children[i];
  }
  leaf = (const struct number_leaf *)node;
  for (i = 0; i < leaf->count; i++) {
    if (leaf->keys[i] == stored) return ordered_value(map, leaf->places[i]);
  }
  return NULL;
}

static inline int text_compare(const struct text *a, const struct text *b) {
  size_t left = text_length(a), right = text_length(b);
  int order = memcmp(text_bytes(a), text_bytes(b), left < right ? left : right);
  return order != 0 ? order : left < right ? -1 : left > right;
}

static inline void *ordered_find_text(const struct ordered_map *map, const struct text *key) {
  const void *node = map->root;
  const struct text_leaf *leaf;
  uint32_t i, level;
  if (node == NULL) return NULL;
  for (level = 0; level < map->height; level++) {
    const struct text_inner *inner = (const struct text_inner *)node;
    for (i = 0; i < inner->count && text_compare(&inner->keys[i], key) <= 0;) i++;
    node = inner->children[i];
  }
  leaf = (const struct text_leaf *)node;
  for (i = 0; i < leaf->count; i++) {
    if (text_compare(&leaf->keys[i], key) == 0) return ordered_value(map, leaf->places[i]);
  }
  return NULL;
}

#endif
