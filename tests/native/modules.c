/* PERM globals in a program and in a shared library that it uses: `modules w+`, then `modules r+`. */
#include "check.h"
#include "perm.h"

int module_register(void);
int *module_value(void);
size_t module_size(void);

PERM double in_program = 20;

int main(int argc, char *argv[]) {
  CHECK(argc == 2);
  CHECK(PERM_SIZE == sizeof(double) && module_size() == sizeof(int));
  CHECK(perm(PERM_START, PERM_SIZE) == 0 && module_register() == 0);
  CHECK(mopen("modules.heap", argv[1], 1 << 20) == 0);
  printf("%g %d\n", in_program, *module_value());
  in_program++;
  *module_value() += 1;
  CHECK(mclose() == 0);
  return 0;
}
