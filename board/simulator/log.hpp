// The vendor's lines on the vendor's streams: I on stdout, E and W on stderr. stdout keeps stdio's
// buffering, as the vendor's library does: into a pipe its lines come late, and a crash loses them.
#pragma once

namespace rksim {

__attribute__((format(printf, 1, 2))) void info(const char* format, ...);     // I rkllm: ...
__attribute__((format(printf, 1, 2))) void warning(const char* format, ...);  // W rkllm: ...
__attribute__((format(printf, 1, 2))) void error(const char* format, ...);    // E rkllm: ...
__attribute__((format(printf, 1, 2))) void npu_error(const char* format, ...);  // E RKNN: [HH:MM:SS.mmm] ...
__attribute__((format(printf, 1, 2))) void raw_error(const char* format, ...);  // the text alone, on stderr

// RKLLM_LOG_LEVEL: 1 = performance table, 2 = also cache lengths and prompt ids.
int log_level();

}  // namespace rksim
