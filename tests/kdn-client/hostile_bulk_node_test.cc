// A node that greets as the bulk protocol has it and then lies, stalls or dies costs the engine a miss with a reason,
// within the deadline, and nothing else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kdn-client/cancellation.h"
#include "kdn-client/client.h"
#include "kdn-client/transport.h"
#include "tests/kdn-client/fake_bulk_node.h"

namespace kdn {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using wire::BulkType;

TEST_P(HostileBulkNodeTest, AWellBehavedScriptIsAHit) {
  node_->Serve(Answering(Honest()));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  EXPECT_EQ(node_->connections(), 1u) << "it is kept";
  node_->Serve(Answering([this](BulkWire& wire, const v1::BulkCall&) {
    for (const uint32_t chunk : {2u, 0u, 1u}) {  // in any order, in any number of frames
      Batch result;
      result.Result(chunk, chunks_[chunk]);
      result.Send(wire);
      for (uint32_t slab = 0; slab < chunks_[chunk].slabs.size(); ++slab) {
        Batch batch;
        batch.Slab(chunk, chunks_[chunk], slab);
        batch.Send(wire);
      }
    }
    return SendAnswer(wire);
  }));
  EXPECT_THAT(Reasons(FetchBy(*Connect({.shared_memory = false}))), Each(MissReason::kNone));
}

TEST_P(HostileBulkNodeTest, FramesThatMakeNoSenseEndTheCallAndNotTheHits) {
  const std::string junk(AsStringView(chunks_[1].slabs[0]).size(), '\x5a');
  struct Case {
    const char* what;
    std::function<void(BulkWire&)> send;
    // Leaves an answer that may come while the connection is in the next call already: that call then has no hits.
    bool answers_twice = false;
  };
  const auto batch = [](const std::function<void(Batch&)>& fill) {
    return [fill](BulkWire& wire) {
      Batch b;
      fill(b);
      b.Send(wire);
    };
  };
  const std::vector<Case> cases = {
      {"a slab before its result", batch([&](Batch& b) { b.Slab(1, chunks_[1], 0); })},
      {"a slab out of order", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 1);
       })},
      {"a slab twice", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.Bytes(1, 0, junk);
       })},
      {"a slab twice, in two frames",
       [&](BulkWire& wire) {
         Batch b;
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.Send(wire);
         Batch again;
         again.Bytes(1, 0, junk);
         again.Send(wire);
       }},
      {"a slab of a chunk that is whole",
       batch([&](Batch& b) { b.Bytes(0, 0, std::string(chunks_[0].slabs[0].size(), 'x')); })},
      {"a slab behind the last",
       batch([&](Batch& b) { b.Bytes(0, static_cast<uint32_t>(chunks_[0].slabs.size()), "x"); })},
      {"a slab that no chunk has", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, UINT32_MAX, junk);
       })},
      {"a slab that is too short", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, 0, std::string_view(junk).substr(1));
       })},
      {"a slab that is too long", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, 0, junk + "x");
       })},
      {"an empty slab", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Bytes(1, 0, "");
       })},
      {"a result for a chunk that was not asked for", batch([&](Batch& b) { b.Result(3, chunks_[1]); })},
      {"a slab of a chunk that was not asked for", batch([&](Batch& b) { b.Bytes(UINT32_MAX, 0, junk); })},
      {"more data than items", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.data += "x";
       })},
      {"fewer data than items", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         b.Slab(1, chunks_[1], 0);
         b.data.pop_back();
       })},
      {"data without items", [](BulkWire& wire) { wire.SendFrame(BulkType::kSlabs, v1::BulkSlabs(), "data"); }},
      {"shared slabs without shared memory", batch([&](Batch& b) {
         b.Result(1, chunks_[1]);
         v1::BulkItem& item = b.Bytes(1, 0, "");
         item.set_bytes(junk.size());
         item.set_shared(true);
       })},
      {"a message that is none", [](BulkWire& wire) { wire.SendRaw(BulkType::kSlabs, "\xff\xff\xff"); }},
      {"an answer that is none", [](BulkWire& wire) { wire.SendRaw(BulkType::kAnswer, "\xff\xff\xff"); }},
      {"an answer with data", [](BulkWire& wire) { wire.SendFrame(BulkType::kAnswer, v1::BulkAnswer(), "data"); }},
      {"an answer in the middle", [](BulkWire& wire) { SendAnswer(wire); }, /*answers_twice=*/true},
      {"a second welcome", [](BulkWire& wire) { wire.SendFrame(BulkType::kWelcome, Welcome()); }},
      {"a client's frame", [](BulkWire& wire) { wire.SendFrame(BulkType::kCall, v1::BulkCall()); }},
      {"a frame of no type", [](BulkWire& wire) { wire.SendHeader(static_cast<BulkType>(0), 0, 0); }},
      {"an enormous message", [](BulkWire& wire) { wire.SendHeader(BulkType::kSlabs, UINT32_MAX, 0); }},
      {"a message over the limit",
       [](BulkWire& wire) { wire.SendHeader(BulkType::kSlabs, wire::kMaxBulkMessageBytes + 1, 0); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    ServeAfterFirstChunk(c.send);
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch();
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kProtocol, MissReason::kProtocol));
    EXPECT_LT(report.elapsed, kPlenty / 4);
    // Nothing of it is left for the next call.
    node_->Serve(Answering(Honest()));
    if (c.answers_twice) client_ = Connect({.shared_memory = false});
    EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, SizesThatOnlyFitWhenTheyWrapAroundAreABreach) {
  ServeAfterFirstChunk([](BulkWire& wire) {
    Batch batch;
    batch.Miss(1, v1::MISS_REASON_NOT_FOUND);  // whose slabs are of any size
    batch.Bytes(1, 0, "").set_bytes(UINT64_MAX);
    batch.Bytes(1, 0, "").set_bytes(5);
    batch.data = "four";
    batch.Send(wire);
  });
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kNotFound, MissReason::kProtocol));
}

TEST_P(HostileBulkNodeTest, AChunkThatIsWholeIsNotOverwrittenByALaterLie) {
  Chunk lie = chunks_[0];
  for (SharedBuffer& slab : lie.slabs) slab = SharedBuffer::CopyOf(AsBytes(std::string(slab.size(), '\x5a')));
  node_->Serve(Answering([this, &lie](BulkWire& wire, const v1::BulkCall&) {
    for (int i = 0; i < 2; ++i) {  // in one frame, then in another
      Batch batch;
      if (i == 0) batch.Whole(0, chunks_[0]);
      batch.Whole(0, lie);
      batch.Miss(0, v1::MISS_REASON_NOT_FOUND);
      for (uint32_t slab = 0; slab < lie.slabs.size(); ++slab) batch.Slab(0, lie, slab);
      batch.Send(wire);
    }
    Batch rest;
    rest.Whole(1, chunks_[1]);
    rest.Whole(2, chunks_[2]);
    rest.Send(wire);
    return SendAnswer(wire);
  }));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, AChunkThatIsAnnouncedTwiceBeforeItIsWholeIsAMiss) {
  node_->Serve(Answering([this](BulkWire& wire, const v1::BulkCall&) {
    Batch batch;
    batch.Result(0, chunks_[0]);
    batch.Slab(0, chunks_[0], 0);
    batch.Whole(0, chunks_[0]);
    batch.Whole(1, chunks_[1]);
    batch.Whole(2, chunks_[2]);
    batch.Send(wire);
    return SendAnswer(wire);
  }));
  EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kProtocol, MissReason::kNone, MissReason::kNone));
}

TEST_P(HostileBulkNodeTest, FlippedBytesAreCorruptAndTheRestIsNot) {
  for (uint32_t slab = 0; slab < chunks_[1].slabs.size(); ++slab) {
    Chunk flipped = chunks_[1];
    std::string bytes(AsStringView(flipped.slabs[slab]));
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
    flipped.slabs[slab] = SharedBuffer::CopyOf(AsBytes(bytes));
    node_->Serve(Answering([this, flipped](BulkWire& wire, const v1::BulkCall&) {
      Batch batch;
      batch.Whole(0, chunks_[0]);
      batch.Whole(1, flipped);
      batch.Whole(2, chunks_[2]);
      batch.Send(wire);
      return SendAnswer(wire);
    }));
    client_ = Connect({.shared_memory = false});
    EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, MissReason::kCorrupt, MissReason::kNone)) << slab;
  }
}

TEST_P(HostileBulkNodeTest, ManifestsThatLieAreMissesOfTheirChunkAlone) {
  Batch torn;
  torn.Whole(1, chunks_[1]);
  torn.slabs.mutable_items(0)->mutable_result()->mutable_manifest()->pop_back();
  Batch empty;
  empty.Whole(1, chunks_[1]);
  empty.slabs.mutable_items(0)->mutable_result()->clear_manifest();
  Batch another;
  another.Whole(1, chunks_[2]);
  Batch missing;
  missing.Miss(1, v1::MISS_REASON_NOT_FOUND);
  Batch missing_with_slabs;
  missing_with_slabs.Miss(1, v1::MISS_REASON_NOT_FOUND);
  missing_with_slabs.Bytes(1, 9, "whatever");
  missing_with_slabs.Bytes(1, 0, std::string(1 << 20, 'x'));
  Batch unknown;
  unknown.Miss(1, 1000);
  Batch empty_slabs_of_a_miss;
  empty_slabs_of_a_miss.Miss(1, v1::MISS_REASON_NOT_FOUND);
  empty_slabs_of_a_miss.Bytes(1, 0, "");
  empty_slabs_of_a_miss.Bytes(1, 0, "");
  const std::vector<std::pair<Batch, MissReason>> cases = {
      {torn, MissReason::kCorrupt},
      {empty, MissReason::kCorrupt},
      {another, MissReason::kProtocol},
      {missing, MissReason::kNotFound},
      {unknown, MissReason::kProtocol},
      {missing_with_slabs, MissReason::kNotFound},
      {empty_slabs_of_a_miss, MissReason::kNotFound},
  };
  for (const auto& [batch, reason] : cases) {
    ServeAfterFirstChunk([&, b = batch](BulkWire& wire) {
      b.Send(wire);
      Batch rest;
      rest.Whole(2, chunks_[2]);
      rest.Send(wire);
    });
    client_ = Connect({.shared_memory = false});
    EXPECT_THAT(Reasons(Fetch()), ElementsAre(MissReason::kNone, reason, MissReason::kNone)) << MissReasonName(reason);
  }
}

TEST_P(HostileBulkNodeTest, ANodeThatDiesMidwayLeavesTheHits) {
  Batch cut;
  cut.Result(1, chunks_[1]);
  cut.Slab(1, chunks_[1], 0);
  const std::string frame = wire::EncodeBulkFrame(BulkType::kSlabs, cut.slabs, cut.data.size()) + cut.data;
  for (const size_t at : {size_t{0}, size_t{7}, wire::kBulkHeaderBytes, wire::kBulkHeaderBytes + 3,
                          frame.size() - cut.data.size(), frame.size() - 1, frame.size()}) {
    node_->Serve(Answering([&, at](BulkWire& wire, const v1::BulkCall&) {
      Batch first;
      first.Whole(0, chunks_[0]);
      first.Send(wire);
      wire.Send(std::string_view(frame).substr(0, at));
      return false;
    }));
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch();
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kUnreachable, MissReason::kUnreachable))
        << at;
    EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("node 127.0.0.1:"));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, ANodeThatStallsMidwayCostsNoMoreThanTheDeadline) {
  Batch cut;
  cut.Result(1, chunks_[1]);
  cut.Slab(1, chunks_[1], 0);
  const std::string frame = wire::EncodeBulkFrame(BulkType::kSlabs, cut.slabs, cut.data.size()) + cut.data;
  for (const size_t at : {size_t{0}, size_t{7}, wire::kBulkHeaderBytes + 3, frame.size() - 1, frame.size()}) {
    node_->Serve(Answering([&, at](BulkWire& wire, const v1::BulkCall&) {
      Batch first;
      first.Whole(0, chunks_[0]);
      first.Send(wire);
      wire.Send(std::string_view(frame).substr(0, at));
      AwaitEnd(wire);
      return false;
    }));
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch(absl::Milliseconds(300));
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kDeadline, MissReason::kDeadline)) << at;
    EXPECT_LT(report.elapsed, absl::Seconds(10));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, AnErrorMidwayIsTheReasonOfTheRest) {
  ServeAfterFirstChunk([](BulkWire& wire) {
    SendAnswer(wire, absl::StatusCode::kResourceExhausted, "too much at once");
    AwaitEnd(wire);
  });
  const FetchReport report = Fetch();
  EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kRefused, MissReason::kRefused));
  EXPECT_THAT(report.chunks[1].miss.detail, HasSubstr("too much at once"));
}

// Neither frames nor data without end keep a client beyond its deadline.
TEST_P(HostileBulkNodeTest, AFloodEndsWithTheDeadline) {
  Batch misses;
  misses.Miss(1, v1::MISS_REASON_NOT_FOUND);
  const std::string frame = wire::EncodeBulkFrame(BulkType::kSlabs, misses.slabs);
  std::string frames;
  while (frames.size() < (1 << 20)) frames += frame;
  Batch endless = misses;
  endless.Bytes(1, 0, "").set_bytes(uint64_t{1} << 60);
  const std::string junk(1 << 20, 'x');
  const std::vector<std::function<void(BulkWire&)>> floods = {
      [&](BulkWire& wire) {
        while (wire.Send(frames)) {
        }
      },
      [&](BulkWire& wire) {
        wire.Send(wire::EncodeBulkFrame(BulkType::kSlabs, endless.slabs, uint64_t{1} << 60));
        while (wire.Send(junk)) {
        }
      },
  };
  for (const auto& flood : floods) {
    ServeAfterFirstChunk(flood);
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch(absl::Milliseconds(500));
    EXPECT_THAT(Reasons(report), ElementsAre(MissReason::kNone, MissReason::kNotFound, MissReason::kDeadline));
    EXPECT_LT(report.elapsed, absl::Seconds(5));
  }
  node_.reset();  // its scripts use what is above
}

TEST_P(HostileBulkNodeTest, WhatIsSaidBehindAnAnswerIsNotForTheNextCall) {
  node_->Serve(Answering([this](BulkWire& wire, const v1::BulkCall& call) {
    if (!call.has_fetch()) return false;
    Batch batch;
    for (uint32_t i = 0; i < chunks_.size(); ++i) batch.Whole(i, chunks_[i]);
    Batch extra;
    extra.Miss(0, v1::MISS_REASON_NOT_FOUND);
    const std::string answers = wire::EncodeBulkFrame(BulkType::kSlabs, batch.slabs, batch.data.size()) + batch.data +
                                wire::EncodeBulkFrame(BulkType::kAnswer, v1::BulkAnswer()) +
                                wire::EncodeBulkFrame(BulkType::kSlabs, extra.slabs) +
                                wire::EncodeBulkFrame(BulkType::kAnswer, v1::BulkAnswer());
    return wire.Send(answers);
  }));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << i;
  EXPECT_EQ(node_->connections(), 3u) << "such a connection is not used again";
}

// An answer that comes too late must not be taken for that of the next call.
TEST_P(HostileBulkNodeTest, AConnectionWhoseAnswerIsOverdueIsNotUsedAgain) {
  std::promise<void> ended_first;
  const std::shared_future<void> first_is_over = ended_first.get_future().share();
  node_->Serve(
      Answering([honest = Honest(), first_is_over, calls = 0](BulkWire& wire, const v1::BulkCall& call) mutable {
        if (++calls == 1) return honest(wire, call);
        first_is_over.wait();
        SendAnswer(wire, absl::StatusCode::kNotFound, "the answer of the second call");
        AwaitEnd(wire);
        return false;
      }));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  EXPECT_THAT(Reasons(Fetch(absl::Milliseconds(200))), Each(MissReason::kDeadline));
  node_->Serve(Answering([honest = Honest()](BulkWire& wire, const v1::BulkCall& call) { return honest(wire, call); }));
  std::thread late([&] { ended_first.set_value(); });
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  late.join();
  EXPECT_EQ(node_->connections(), 2u);
}

TEST_P(HostileBulkNodeTest, ALostConnectionThatWasKeptIsReplacedSilently) {
  // Closed in between, seen before the next call or not; then in the moment in which a call comes.
  for (const bool reads_the_call : {false, true}) {
    node_->Serve(
        Answering([honest = Honest(), reads_the_call, calls = 0](BulkWire& wire, const v1::BulkCall& call) mutable {
          if (++calls > 1) return false;
          return honest(wire, call) && reads_the_call;
        }));
    client_ = Connect({.shared_memory = false});
    const size_t before = node_->connections();
    for (int i = 0; i < 4; ++i) EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone)) << i << reads_the_call;
    EXPECT_EQ(node_->connections(), before + 4);
  }
}

TEST_P(HostileBulkNodeTest, ANodeThatAlwaysDiesIsAskedTwiceAtMost) {
  node_->Serve(Answering([honest = Honest()](BulkWire& wire, const v1::BulkCall& call) { return honest(wire, call); }));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  // The kept connection ends with its node, and each new one once it has the call.
  const uint16_t port = node_->port();
  node_.reset();
  node_ = std::make_unique<FakeNode>(Answering([](BulkWire&, const v1::BulkCall&) { return false; }), port);
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kUnreachable));
  EXPECT_LE(node_->connections(), 2u);
}

TEST_P(HostileBulkNodeTest, ANodeThatWasStartedAnewIsFoundByTheNextCall) {
  node_->Serve(Answering(Honest()));
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
  const uint16_t port = node_->port();
  node_.reset();
  node_ = std::make_unique<FakeNode>(Answering(Honest()), port);
  EXPECT_THAT(Reasons(Fetch()), Each(MissReason::kNone));
}

TEST_P(HostileBulkNodeTest, WhoDoesNotGreetIsAskedByGrpcWhichFailsToo) {
  const std::vector<FakeNode::Script> scripts = {
      [](BulkWire& wire, bool) {
        if (ReadGreeting(wire)) wire.Send("HTTP/1.1 400 Bad Request\r\n\r\n");
      },
      [](BulkWire& wire, bool) { ReadGreeting(wire); },
      [](BulkWire& wire, bool) {
        if (!ReadGreeting(wire)) return;
        v1::BulkWelcome welcome = Welcome();
        welcome.set_version(2);
        wire.SendFrame(BulkType::kWelcome, welcome);
      },
      [](BulkWire& wire, bool) {
        if (ReadGreeting(wire)) wire.SendFrame(BulkType::kWelcome, Welcome(), "data");
      },
      [](BulkWire& wire, bool) {
        if (ReadGreeting(wire)) SendAnswer(wire);
      },
  };
  for (const FakeNode::Script& script : scripts) {
    node_->Serve(script);
    client_ = Connect({.shared_memory = false});
    const FetchReport report = Fetch(absl::Seconds(3));
    EXPECT_THAT(Reasons(report), Each(AnyOf(MissReason::kUnreachable, MissReason::kDeadline)));
    EXPECT_LT(report.elapsed, absl::Seconds(10));
  }
}

TEST_P(HostileBulkNodeTest, WhoNeverGreetsCostsNoMoreThanTheDeadline) {
  node_->Serve([](BulkWire& wire, bool) { AwaitEnd(wire); });
  const FetchReport report = Fetch(absl::Milliseconds(300));
  EXPECT_THAT(Reasons(report), Each(MissReason::kDeadline));
  EXPECT_LT(report.elapsed, absl::Seconds(10));
}

TEST_P(HostileBulkNodeTest, StoresAndLookupsThatAreAnsweredWronglyFail) {
  const std::vector<Token> tokens = SomeTokens(kTokens);
  const auto lookup = [&] { return client_->LookupPrefix(tokens, {.deadline = kPlenty}); };
  const auto store = [&] {
    return client_->Store(refs_, computed_.view(), {.deadline = kPlenty, .codec = GetParam()}).value();
  };
  node_->Serve(Answering(Honest()));
  EXPECT_EQ(lookup().hits, 3u);

  // For another number of chunks, a torn message, slabs, or nothing.
  const std::vector<OnCall> answers = {
      [](BulkWire& wire, const v1::BulkCall&) {
        v1::BulkAnswer answer;
        answer.mutable_lookup()->add_chunks();
        answer.mutable_store()->add_chunks();
        return wire.SendFrame(BulkType::kAnswer, answer);
      },
      [](BulkWire& wire, const v1::BulkCall&) { return wire.SendRaw(BulkType::kAnswer, "\xff\xff"); },
      [](BulkWire& wire, const v1::BulkCall&) { return wire.SendFrame(BulkType::kSlabs, v1::BulkSlabs()); },
      [](BulkWire&, const v1::BulkCall&) { return false; },
  };
  for (size_t i = 0; i < answers.size(); ++i) {
    SCOPED_TRACE(i);
    node_->Serve(Answering(answers[i]));
    client_ = Connect({.shared_memory = false});
    EXPECT_EQ(lookup().hits, 0u);
    EXPECT_THAT(lookup().stopped_by.reason, i < 3 ? MissReason::kProtocol : MissReason::kUnreachable);
    for (const absl::Status& chunk : store().chunks) EXPECT_FALSE(chunk.ok());
  }
}

TEST_P(HostileBulkNodeTest, ACancelledFetchReturnsSoon) {
  struct Case {
    const char* what;
    std::function<void(BulkWire&)> before_the_stall;
  };
  Batch first;
  first.Whole(0, chunks_[0]);
  const std::vector<Case> cases = {
      {"before the greeting", [](BulkWire&) {}},
      {"before any frame",
       [](BulkWire& wire) {
         if (Greet(wire)) ReadCall(wire);
       }},
      {"between frames",
       [&](BulkWire& wire) {
         if (Greet(wire) && ReadCall(wire).has_value()) first.Send(wire);
       }},
      {"within a slab",
       [&](BulkWire& wire) {
         if (!Greet(wire) || !ReadCall(wire).has_value()) return;
         wire.Send(wire::EncodeBulkFrame(BulkType::kSlabs, first.slabs, first.data.size()));
         wire.Send(std::string_view(first.data).substr(0, first.data.size() - 1));
       }},
  };
  std::vector<ChunkKey> keys;
  for (const ChunkRef& ref : refs_) keys.push_back(ref.key);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const auto stalling = std::make_shared<std::promise<void>>();
    node_->Serve([stalling, before_the_stall = c.before_the_stall](BulkWire& wire, bool) {
      before_the_stall(wire);
      stalling->set_value();
      AwaitEnd(wire);
    });
    const std::shared_ptr<Transport> transport = TransportTo({.shared_memory = false});
    Cancellation cancel;
    std::thread canceller([&cancel, stalling] {
      stalling->get_future().wait();
      cancel.Cancel();
    });
    OpenSink sink;
    FetchQuery query = {.space = client_->space_id(), .keys = keys, .cancel = &cancel};
    const absl::Time begin = absl::Now();
    const absl::Status ended = transport->Fetch(query, begin + absl::Seconds(10), sink);
    EXPECT_TRUE(absl::IsCancelled(ended)) << ended;
    EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
    canceller.join();
  }
  // One that was cancelled before does not begin.
  Cancellation cancelled;
  cancelled.Cancel();
  node_->Serve(Answering(Honest()));
  OpenSink sink;
  FetchQuery query = {.space = client_->space_id(), .keys = keys, .cancel = &cancelled};
  EXPECT_TRUE(
      absl::IsCancelled(TransportTo({.shared_memory = false})->Fetch(query, absl::Now() + absl::Seconds(10), sink)));
  node_.reset();  // its scripts use what is above
}

// Raw slabs are received straight into the engine's memory, others into buffers.
INSTANTIATE_TEST_SUITE_P(Codecs, HostileBulkNodeTest, testing::Values("raw", "zstd"), NameOfCodec);

}  // namespace
}  // namespace kdn
