#include "kdn-client/decode_pool.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <thread>
#include <utility>

namespace kdn {

size_t DecodeThreads() {
  static const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 2, 9) - 1;
  return threads;
}

void RunOnDecodeThread(std::function<void()> task) {
  // Never destroyed: a process that ends does not wait for them.
  static auto* const pool = new boost::asio::thread_pool(DecodeThreads());
  boost::asio::post(*pool, std::move(task));
}

}  // namespace kdn
