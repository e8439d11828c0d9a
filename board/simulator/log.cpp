#include "log.hpp"

#include <sys/time.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

namespace rksim {
namespace {

// One write per line, so that lines of several threads do not mix.
void put(FILE* stream, const std::string& prefix, const char* format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, again);
  va_end(again);
  if (length < 0) return;
  std::string text(size_t(length) + 1, '\0');
  std::vsnprintf(&text[0], text.size(), format, arguments);
  text.back() = '\n';
  text.insert(0, prefix);
  std::fwrite(text.data(), 1, text.size(), stream);
}

std::string npu_prefix() {
  timeval now{};
  gettimeofday(&now, nullptr);
  tm local{};
  localtime_r(&now.tv_sec, &local);
  char text[64];
  std::snprintf(text, sizeof text, "E RKNN: [%02d:%02d:%02d.%03d] ", local.tm_hour, local.tm_min, local.tm_sec,
                int(now.tv_usec / 1000));
  return text;
}

}  // namespace

#define RKSIM_PUT(stream, prefix)       \
  va_list arguments;                    \
  va_start(arguments, format);          \
  put(stream, prefix, format, arguments); \
  va_end(arguments)

void info(const char* format, ...) { RKSIM_PUT(stdout, "I rkllm: "); }
void warning(const char* format, ...) { RKSIM_PUT(stderr, "W rkllm: "); }
void error(const char* format, ...) { RKSIM_PUT(stderr, "E rkllm: "); }
void npu_error(const char* format, ...) { RKSIM_PUT(stderr, npu_prefix()); }
void raw_error(const char* format, ...) { RKSIM_PUT(stderr, ""); }

int log_level() {
  const char* level = std::getenv("RKLLM_LOG_LEVEL");
  return level ? std::atoi(level) : 0;
}

}  // namespace rksim
