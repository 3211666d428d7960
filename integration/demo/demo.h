// The demo: a real document through the reference engine, cold and out of KDN, in processes of their own.
//
//   RunDemo({.node = "kdn-node", .engine = "kdn-engine", .document = "GPL-3"}, print);
//
// Every run must give the same logits to the bit, find every chunk that was acknowledged, and a fetched prompt must
// give its first token in a fifth of the time of a cold one. Between the runs the node is killed with SIGKILL.
//
// Thread-safety: one demo at a time.
#ifndef KDN_INTEGRATION_DEMO_DEMO_H_
#define KDN_INTEGRATION_DEMO_DEMO_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace kdn {

struct DemoOptions {
  std::string node;      // path of kdn-node
  std::string engine;    // path of kdn-engine
  std::string document;  // an English text of at least `tokens` bytes, and 1,280 more for the document stored last
  std::string model = "layers=8,hidden=512,heads=8,kv_heads=4,intermediate=1376,vocab=260,seed=1";
  std::string kv_dtype = "bf16";
  uint32_t tokens = 8192;  // of the document that are prefilled; a short question follows them
  uint32_t generate = 16;
  const std::atomic<bool>* cancelled = nullptr;  // once true, the demo cleans up and ends
};

// A fetched prompt must give its first token in this part of a cold one's time.
inline constexpr double kMostOfColdTime = 0.2;

// Tells `print` what it does, line by line, and what came of it as a table. An error is one line that says what failed.
// Leaves no process and no file behind.
absl::Status RunDemo(const DemoOptions& options, absl::FunctionRef<void(const std::string&)> print);

}  // namespace kdn

#endif  // KDN_INTEGRATION_DEMO_DEMO_H_
