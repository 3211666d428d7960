// A node that lends shared memory, and lies about it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/cancellation.h"
#include "storage/base/shared_arena.h"
#include "tests/kdn-client/fake_bulk_node.h"

namespace kdn {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using wire::BulkType;

// A fake node that also lends shared memory.
class HostileSharedNodeTest : public HostileBulkNodeTest {
 protected:
  void SetUp() override {
    HostileBulkNodeTest::SetUp();
    if (IsSkipped()) return;
    client_ = Connect({});
  }

  // Names the local socket to who comes by TCP, and passes `memory` to who comes by that.
  FakeNode::Script Lending(int memory, uint64_t bytes, const OnCall& on_local_call, const OnCall& on_call) {
    v1::BulkWelcome welcome = Welcome();
    std::ifstream("/proc/sys/kernel/random/boot_id") >> *welcome.mutable_machine();
    welcome.set_local_socket(node_->local_name());
    return [=](BulkWire& wire, bool local) mutable {
      if (!ReadGreeting(wire)) return;
      if (local) welcome.set_shared_bytes(bytes);
      const std::string frame = wire::EncodeBulkFrame(BulkType::kWelcome, welcome);
      if (!local || memory < 0) {
        wire.Send(frame);
      } else if (!SendWithDescriptor(wire.fd(), AsBytes(frame), memory)) {
        return;
      }
      for (;;) {
        const std::optional<v1::BulkCall> call = ReadCall(wire);
        if (!call.has_value() || !(local ? on_local_call : on_call)(wire, *call)) return;
      }
    };
  }
  static bool ReadRelease(BulkWire& wire) {
    const std::optional<BulkWire::Frame> frame = wire.Read();
    return frame.has_value() && frame->type == BulkType::kRelease && frame->As<v1::BulkRelease>().batches() == 1;
  }
  // A chunk whose slabs lie in `arena_`.
  Batch Shared(uint32_t chunk) {
    Batch batch;
    batch.Result(chunk, chunks_[chunk]);
    for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) {
      const ByteSpan bytes = chunks_[chunk].slabs[slab];
      Buffer buffer(bytes.size(), arena_);
      std::memcpy(buffer.data(), bytes.data(), bytes.size());
      v1::BulkItem& item = batch.Bytes(chunk, slab, "");
      item.set_bytes(bytes.size());
      item.set_shared(true);
      item.set_offset(arena_->OffsetOf(buffer.span()).value());
      lent_.push_back(std::move(buffer).Freeze());
    }
    return batch;
  }
  static OnCall Never() {
    return [](BulkWire&, const v1::BulkCall&) {
      ADD_FAILURE() << "this connection is not for calls";
      return false;
    };
  }

  std::shared_ptr<SharedArena> arena_ = SharedArena::Create(1 << 20).value();
  std::vector<SharedBuffer> lent_;
};

TEST_P(HostileSharedNodeTest, SharedSlabsAreReadAndGivenBack) {
  const std::vector<Batch> batches = {Shared(0), Shared(1)};
  Batch last;
  last.Whole(2, chunks_[2]);
  node_->Serve(Lending(
      arena_->fd(), arena_->size(),
      [&](BulkWire& wire, const v1::BulkCall&) {
        for (const Batch& batch : batches) {
          if (!batch.Send(wire) || !ReadRelease(wire)) return false;
        }
        return last.Send(wire) && SendAnswer(wire);
      },
      Never()));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << i;
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileSharedNodeTest, SlabsOutsideOfMemoryAreABreach) {
  const uint64_t size = chunks_[1].slabs[0].size();
  for (const uint64_t offset : {arena_->size(), arena_->size() - size + 1, UINT64_MAX, UINT64_MAX - size + 1}) {
    Batch beyond = Shared(1);
    beyond.slabs.mutable_items(1)->set_offset(offset);
    Batch first = Shared(0);
    node_->Serve(Lending(
        arena_->fd(), arena_->size(),
        [first, beyond](BulkWire& wire, const v1::BulkCall&) {
          first.Send(wire);
          beyond.Send(wire);
          AwaitEnd(wire);
          return false;
        },
        Never()));
    client_ = Connect({});
    EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kProtocol, MissReason::kProtocol))
        << offset;
  }
}

TEST_P(HostileSharedNodeTest, OtherBytesThanTheManifestSaysAreCorrupt) {
  Batch wrong = Shared(1);
  wrong.slabs.mutable_items(1)->set_offset(wrong.slabs.items(1).offset() + 1);
  const Batch first = Shared(0);
  const Batch last = Shared(2);
  node_->Serve(Lending(
      arena_->fd(), arena_->size(),
      [&](BulkWire& wire, const v1::BulkCall&) {
        for (const Batch* batch : {&first, &std::as_const(wrong), &last}) {
          if (!batch->Send(wire) || !ReadRelease(wire)) return false;
        }
        return SendAnswer(wire);
      },
      Never()));
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone));
  node_.reset();  // its scripts use what is above
}

// Memory that might end this process when it is read is not mapped; slabs come by TCP.
TEST_P(HostileSharedNodeTest, MemoryThatCannotBeTrustedIsNotUsed) {
  const UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 1 << 20), 0);
  UniqueFd pipe_ends[2];
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pipe_ends[0] = UniqueFd(ends[0]);
  pipe_ends[1] = UniqueFd(ends[1]);
  const std::vector<std::pair<int, uint64_t>> memories = {
      {unsealed.get(), 1 << 20}, {arena_->fd(), arena_->size() + 1}, {arena_->fd(), UINT64_MAX}, {arena_->fd(), 0},
      {-1, arena_->size()},      {pipe_ends[0].get(), 1 << 20},
  };
  for (const auto& [memory, bytes] : memories) {
    node_->Serve(Lending(memory, bytes, Never(), Honest()));
    client_ = Connect({});
    EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << bytes;
  }
}

TEST_P(HostileSharedNodeTest, ALocalNodeThatWasStartedAnewIsFoundByTheNextCall) {
  const auto serve = [](const std::vector<Batch>& batches) -> OnCall {
    return [batches](BulkWire& wire, const v1::BulkCall&) {
      for (const Batch& batch : batches) {
        if (!batch.Send(wire) || !ReadRelease(wire)) return false;
      }
      return SendAnswer(wire);
    };
  };
  node_->Serve(Lending(arena_->fd(), arena_->size(), serve({Shared(0), Shared(1), Shared(2)}), Never()));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  const uint16_t port = node_->port();
  node_.reset();
  // Its memory is another, and so are its socket's name and the slabs' places.
  arena_ = SharedArena::Create(2 << 20).value();
  const Buffer shift(12345, arena_);
  lent_.clear();
  node_ = std::make_unique<FakeNode>([](BulkWire&, bool) {}, port);
  node_->Serve(Lending(arena_->fd(), arena_->size(), serve({Shared(2), Shared(0), Shared(1)}), Never()));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
}

TEST_P(HostileSharedNodeTest, ACancelledFetchReturnsSoon) {
  std::vector<ChunkKey> keys;
  for (const ChunkRef& ref : refs_) keys.push_back(ref.key);
  const Batch first = Shared(0);
  const auto stalling = std::make_shared<std::promise<void>>();
  node_->Serve(Lending(
      arena_->fd(), arena_->size(),
      [stalling, first](BulkWire& wire, const v1::BulkCall&) {
        first.Send(wire);
        stalling->set_value();
        AwaitEnd(wire);
        return false;
      },
      Never()));
  Cancellation cancel;
  std::thread canceller([&cancel, stalling] {
    stalling->get_future().wait();
    cancel.Cancel();
  });
  OpenSink sink;
  const absl::Time begin = absl::Now();
  const absl::Status ended =
      TransportTo({})->Fetch({.space = client_->space_id(), .keys = keys, .cancel = &cancel}, begin + kPlenty, sink);
  EXPECT_TRUE(absl::IsCancelled(ended)) << ended;
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  canceller.join();
}

INSTANTIATE_TEST_SUITE_P(Codecs, HostileSharedNodeTest, testing::Values("raw", "zstd"), NameOfCodec);

}  // namespace
}  // namespace kdn
