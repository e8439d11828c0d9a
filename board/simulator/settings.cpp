// What the application changes between runs: the cache, the template, adapters, the prompt cache.
#include <sys/stat.h>

#include "errors.hpp"
#include "log.hpp"
#include "session.hpp"

namespace rksim {
namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\n' ? std::string("\\n") : std::string(1, c);
  return out;
}

std::string string_of(const char* text) { return text ? text : ""; }

bool exists(const char* path) {
  struct stat status{};
  return stat(path, &status) == 0;
}

}  // namespace

template <typename F>
int Session::setting(F&& change) {
  if (!begin(Busy::setting)) {
    error("nothing can be changed while a run of this handle is going on");
    return -1;
  }
  int result = -1;
  try {
    result = change();
  } catch (const Refused&) {
  } catch (const std::exception& e) {
    error("%s", e.what());
  }
  end();
  return result;
}

int Session::clear(bool keep_system) {
  const int result = setting([&] {
    if (habits_.clear_empty_fails && lanes_[0]->empty()) return -1;
    for (auto& lane : lanes_) lane->clear(keep_system);
    paused_ = false;
    return 0;
  });
  if (result != 0) error("failed to clear kv cache");
  return result;
}

int Session::clear_ranges(const int* starts, const int* ends) {
  const int result = setting([&] {
    if (!paused_)
      RKSIM_REFUSE("start_pos and end_pos are only valid when keep_history == 0 and the generation has been paused by "
                   "returning 1 in the callback!");
    bool whole = true;
    for (size_t i = 0; i < lanes_.size(); i++) {
      if (!lanes_[i]->remove(starts[i], ends[i])) return -1;
      whole = whole && lanes_[i]->empty();
    }
    if (whole) paused_ = false;
    return 0;
  });
  if (result != 0) error("failed to clear kv cache");
  return result;
}

int Session::set_template(const char* system, const char* prefix, const char* postfix) {
  const std::string s = string_of(system), before = string_of(prefix), after = string_of(postfix);
  const int result = setting([&] {
    for (auto& lane : lanes_) lane->clear(false);
    paused_ = false;
    assembler_.chat.set(s, before, after);
    return 0;
  });
  if (result != 0) {
    error("failed to clear kv cache");
    return -1;
  }
  info("reset chat template:");
  info("system_prompt: %s", escaped(s).c_str());
  info("prompt_prefix: %s", escaped(before).c_str());
  info("prompt_postfix: %s", escaped(after).c_str());
  info("All kv caches have been deleted!");
  warning("Calling rkllm_set_chat_template will disable the internal automatic chat template parsing, including "
          "enable_thinking. Make sure your custom prompt is complete and valid.");
  return 0;
}

int Session::set_tools(const char* system, const char* tools, const char* tool_response) {
  return setting([&] {
    if (assembler_.chat.empty()) RKSIM_REFUSE("the chat template is empty, function tools cannot be set");
    assembler_.chat.set_tools(string_of(system), string_of(tools), string_of(tool_response));
    return 0;
  });
}

int Session::load_adapter(const char* path, const char* name, float scale) {
  return setting([&] {
    if (!name || !path) RKSIM_REFUSE("lora_adapter_%s is NULL", name ? "path" : "name");
    if (adapters_.count(name)) RKSIM_REFUSE("Lora adapter '%s' is already initialized!", name);
    if (!exists(path)) RKSIM_REFUSE("Lora adapter path does not exist!");
    try {
      adapters_[name] = std::make_shared<const Adapter>(path, *model_, scale);
    } catch (const Refused&) {
      adapters_.erase(name);
      RKSIM_REFUSE("failed to load lora adapter file from %s", path);
    }
    info("loaded Lora adapter '%s' from %s, scale: %f", name, path, double(scale));
    return 0;
  });
}

int Session::load_prompt_cache(const char* path) {
  return setting([&] {
    if (!path) RKSIM_REFUSE("prompt_cache_path is NULL");
    info("load prompt cache from '%s'", path);
    std::unique_ptr<PromptCache> cache(new PromptCache());
    cache->load(path, *model_, profile_.compute);
    info("loaded a prompt cache with prompt size of %d tokens", int(cache->keys.size()));
    loaded_ = std::move(cache);
    return 0;
  });
}

int Session::release_prompt_cache() {
  return setting([&] {
    loaded_.reset();
    return 0;
  });
}

}  // namespace rksim
