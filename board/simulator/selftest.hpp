// What the parts of the self-test share.
#pragma once
#include <cstdint>

extern int failures;
void expect(bool good, const char* what);

struct Random {
  uint32_t state = 12345;
  uint32_t next() { return state = state * 1664525u + 1013904223u; }
  float real() { return float(int(next() >> 8) - (1 << 23)) / float(1 << 23); }
};

void memory_is_modelled();
void with_a_model(const char* path);
void damaged_files(const char* model, const char* scratch);
int soak(int count, char** arguments);
