// The small parts of a node: budgets, workers, and the conversion of what peers name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <string>
#include <vector>

#include "kdn-node/byte_budget.h"
#include "kdn-node/wire_convert.h"
#include "proto/wire/frames.h"
#include "storage/base/endpoint.h"
#include "storage/base/mutex.h"
#include "storage/base/status.h"
#include "storage/base/worker_pool.h"

namespace kdn {
namespace {

using ::testing::HasSubstr;

TEST(ByteBudget, NeverHoldsMoreThanItsLimitAndGetsAllOfItBack) {
  ByteBudget budget(100);
  {
    ByteReservation a(budget);
    ByteReservation b(budget);
    EXPECT_TRUE(a.Grow(60));
    EXPECT_FALSE(b.Grow(41));
    EXPECT_FALSE(b.Grow(~uint64_t{0}));
    EXPECT_EQ(b.bytes(), 0u);
    EXPECT_TRUE(b.Grow(40));
    a.ShrinkTo(10);
    a.ShrinkTo(50);  // not a way to grow
    EXPECT_EQ(a.bytes(), 10u);
    EXPECT_EQ(budget.held(), 50u);
    const ByteReservation moved = std::move(a);
    EXPECT_EQ(budget.held(), 50u);
  }
  EXPECT_EQ(budget.held(), 0u);
}

TEST(WorkerPool, RefusesNewWorkWhenTooMuchWaitsButNeverTheNextStep) {
  std::latch started(1);
  std::latch release(1);
  std::atomic<int> ran = 0;
  {
    WorkerPool pool(/*threads=*/1, /*max_waiting=*/2);
    ASSERT_TRUE(pool.TrySubmit([&] {
      started.count_down();
      release.wait();
    }));
    started.wait();
    EXPECT_TRUE(pool.TrySubmit([&] { ++ran; }));
    EXPECT_TRUE(pool.TrySubmit([&] { ++ran; }));
    EXPECT_TRUE(pool.Full());
    EXPECT_FALSE(pool.TrySubmit([&] { ++ran; }));
    pool.Submit([&] { ++ran; });
    EXPECT_EQ(pool.waiting(), 3u);
    release.count_down();
  }
  EXPECT_EQ(ran, 3);  // what waited was run before the pool went
}

// Tasks that say when they run, and may wait until they are let go.
class NotedTasks {
 public:
  WorkerPool::Task Make(const std::string& name, bool waits = false) {
    return [this, name, waits] {
      MutexLock lock(mu_);
      begun_.push_back(name);
      changed_.NotifyAll();
      while (waits && !open_) changed_.Wait(mu_);
    };
  }
  std::vector<std::string> AwaitBegun(size_t n) {
    MutexLock lock(mu_);
    while (begun_.size() < n) changed_.Wait(mu_);
    return begun_;
  }
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::string> begun_ ABSL_GUARDED_BY(mu_);
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

TEST(WorkerPool, IdleWorkLetsOthersGoFirst) {
  NotedTasks tasks;
  WorkerPool pool(1, /*max_waiting=*/2);
  ASSERT_TRUE(pool.TrySubmitIdle(tasks.Make("idle 1", /*waits=*/true)));
  tasks.AwaitBegun(1);
  ASSERT_TRUE(pool.TrySubmitIdle(tasks.Make("idle 2")));
  ASSERT_TRUE(pool.TrySubmitIdle(tasks.Make("idle 3")));
  EXPECT_FALSE(pool.TrySubmitIdle(tasks.Make("idle 4")));
  EXPECT_EQ(pool.waiting(), 0u);
  ASSERT_TRUE(pool.TrySubmit(tasks.Make("work 1")));
  ASSERT_TRUE(pool.TrySubmit(tasks.Make("work 2")));
  tasks.Open();
  EXPECT_THAT(tasks.AwaitBegun(5), ::testing::ElementsAre("idle 1", "work 1", "work 2", "idle 2", "idle 3"));
}

TEST(WorkerPool, IdleWorkLeavesThreadsFree) {
  NotedTasks tasks;
  WorkerPool pool(2, /*max_waiting=*/10);
  ASSERT_TRUE(pool.TrySubmitIdle(tasks.Make("idle 1", /*waits=*/true)));
  tasks.AwaitBegun(1);
  ASSERT_TRUE(pool.TrySubmitIdle(tasks.Make("idle 2")));
  ASSERT_TRUE(pool.TrySubmit(tasks.Make("work")));
  EXPECT_THAT(tasks.AwaitBegun(2), ::testing::ElementsAre("idle 1", "work"));
  tasks.Open();
  tasks.AwaitBegun(3);
}

TEST(Endpoint, WritesWhatItReads) {
  for (const char* text : {"127.0.0.1:7401", "[::1]:0", "localhost:65535", "node-7.example:1"}) {
    const absl::StatusOr<Endpoint> endpoint = ParseEndpoint(text);
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    EXPECT_EQ(endpoint->ToString(), text);
  }
  for (const char* text : {"", ":", ":80", "a b:80", "[::1]", "[::1]80", "[::1:80", "[]:80", "host:", "host:-1",
                           "host:+1", "host: 1", "http://host:80", "unix:/tmp/x"}) {
    EXPECT_EQ(ParseEndpoint(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ParseKeys, RefusesWrongLengthsAndTooMany) {
  const std::string space(32, 's');
  EXPECT_EQ(ParseKeys(space, std::string(64, 'k'))->keys.size(), 2u);
  EXPECT_TRUE(ParseKeys(space, "")->keys.empty());
  EXPECT_TRUE(ParseKeys(space, std::string(32 * wire::kMaxKeysPerCall, 'k')).ok());
  for (const auto& [bad_space, keys, names] :
       {std::tuple{std::string(31, 's'), std::string(), "space_id has 31 bytes"},
        std::tuple{space, std::string(33, 'k'), "keys has 33 bytes"},
        std::tuple{space, std::string(32 * (wire::kMaxKeysPerCall + 1), 'k'), "4097 keys"}}) {
    const absl::Status refused = ParseKeys(bad_space, keys).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(refused), HasSubstr(names));
  }
}

TEST(ParseFetchRequest, RefusesWhatIsOutOfRangeByName) {
  v1::FetchRequest good;
  good.set_space_id(std::string(32, 's'));
  good.set_keys(std::string(32, 'k'));
  const absl::StatusOr<FetchCall> call = ParseFetchRequest(good);
  ASSERT_TRUE(call.ok()) << call.status();
  EXPECT_EQ(call->layers, LayerRange{});
  EXPECT_EQ(call->least, Fidelity::kExact);
  EXPECT_EQ(call->frame_bytes, wire::kDefaultFrameBytes);

  const auto refusal = [&](auto change) {
    v1::FetchRequest bad = good;
    change(bad);
    const absl::Status status = ParseFetchRequest(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return MessageOf(status);
  };
  EXPECT_THAT(refusal([](auto& r) { r.set_layer_begin(3), r.set_layer_end(3); }), HasSubstr("layers [3, 3) are empty"));
  EXPECT_THAT(refusal([](auto& r) { r.set_max_frame_bytes(4095); }), HasSubstr("max_frame_bytes 4095"));
  EXPECT_THAT(refusal([](auto& r) { r.set_max_frame_bytes(wire::kMaxFrameBytes + 1); }), HasSubstr("max_frame_bytes"));
  EXPECT_THAT(refusal([](auto& r) { r.set_order(static_cast<v1::FetchRequest::Order>(9)); }), HasSubstr("order 9"));
  EXPECT_THAT(refusal([](auto& r) { r.set_least_fidelity(static_cast<v1::Fidelity>(9)); }),
              HasSubstr("least_fidelity 9"));
}

TEST(WireText, IsAlwaysAValidProtobufString) {
  v1::ChunkStatus status;
  status.set_message(WireText(std::string("bad \xff\xfe\n") + std::string(100'000, 'x')));
  EXPECT_LT(status.message().size(), 2000u);
  v1::ChunkStatus got;
  EXPECT_TRUE(got.ParseFromString(status.SerializeAsString()));
  EXPECT_THAT(got.message(), HasSubstr("bad ???"));
}

}  // namespace
}  // namespace kdn
