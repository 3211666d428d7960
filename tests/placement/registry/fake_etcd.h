// FakeEtcd: an etcd member inside the test, that misbehaves as it is told to.
//
//   FakeEtcd etcd;
//   etcd.state().With([](FakeEtcdState& state) { state.on_txn = &Refuse; });
//   ConnectEtcd({.endpoints = {etcd.endpoint()}});
//
// Records are what is put into `records`; the fake itself commits nothing but revisions.
//
// Thread-safety: any thread may call.
#ifndef KDN_TESTS_PLACEMENT_REGISTRY_FAKE_ETCD_H_
#define KDN_TESTS_PLACEMENT_REGISTRY_FAKE_ETCD_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "etcd/etcd.grpc.pb.h"
#include "storage/base/mutex.h"

namespace kdn {

struct FakeEtcdState {
  uint64_t cluster = 1;
  int64_t revision = 10;
  std::map<std::string, etcdserverpb::KeyValue> records = {};
  // Asked before the fake does its own; an error is the answer.
  std::function<grpc::Status(const etcdserverpb::RangeRequest&)> on_range = {};
  std::function<grpc::Status(grpc::ServerContext&)> on_txn = {};
  std::function<grpc::Status()> on_grant = {};
  std::function<grpc::Status()> on_revoke = {};

  std::vector<etcdserverpb::RangeRequest> ranges = {};
  int txns = 0;
  int grants = 0;
  int revokes = 0;
  int probes = 0;
  std::vector<etcdserverpb::WatchCreateRequest> creates = {};
  bool answers_probes = true;
  int streams = 0;
  // Sent by the newest watch stream in this order. One with `canceled`, and no compact_revision, ends the stream.
  std::deque<etcdserverpb::WatchResponse> outbox = {};

  void Put(const std::string& key, const std::string& value) {
    etcdserverpb::KeyValue& kv = records[key];
    kv.set_key(key);
    kv.set_value(value);
    kv.set_mod_revision(++revision);
  }
};

class FakeEtcd {
 public:
  // Of its own thread-safety: tests and the handlers share it.
  class Shared {
   public:
    template <typename Change>
    auto With(Change&& change) {
      MutexLock lock(mu_);
      changed_.NotifyAll();
      return change(state_);
    }
    // False when it did not become true in a minute.
    bool WaitFor(const std::function<bool(const FakeEtcdState&)>& enough) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
      MutexLock lock(mu_);
      while (!enough(state_)) {
        if (std::chrono::steady_clock::now() >= end) return false;
        changed_.WaitUntil(mu_, end);
      }
      return true;
    }
    // Waits a moment for a change.
    void WaitABit() {
      MutexLock lock(mu_);
      changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
    }

   private:
    Mutex mu_;
    CondVar changed_;
    FakeEtcdState state_ ABSL_GUARDED_BY(mu_);
  };

  FakeEtcd() : kv_(shared_), lease_(shared_), watch_(shared_) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&kv_);
    builder.RegisterService(&lease_);
    builder.RegisterService(&watch_);
    server_ = builder.BuildAndStart();
  }
  ~FakeEtcd() { Stop(); }

  // Nobody listens any more.
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
  }

  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  Shared& state() { return *shared_; }

 private:
  static void Sign(const FakeEtcdState& state, etcdserverpb::ResponseHeader& header) {
    header.set_cluster_id(state.cluster);
    header.set_revision(state.revision);
  }

  class Kv final : public etcdserverpb::KV::Service {
   public:
    explicit Kv(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
    grpc::Status Range(grpc::ServerContext*, const etcdserverpb::RangeRequest* request,
                       etcdserverpb::RangeResponse* response) override {
      return shared_->With([&](FakeEtcdState& state) {
        if (!request->serializable()) state.ranges.push_back(*request);
        if (state.on_range && !request->serializable()) {
          if (grpc::Status status = state.on_range(*request); !status.ok()) return status;
        }
        Sign(state, *response->mutable_header());
        if (request->count_only()) return grpc::Status::OK;
        for (auto it = state.records.lower_bound(request->key()); it != state.records.end(); ++it) {
          if (it->first >= request->range_end()) break;
          if (request->limit() > 0 && response->kvs_size() == request->limit()) {
            response->set_more(true);
            break;
          }
          *response->add_kvs() = it->second;
        }
        return grpc::Status::OK;
      });
    }
    grpc::Status Txn(grpc::ServerContext* context, const etcdserverpb::TxnRequest*,
                     etcdserverpb::TxnResponse* response) override {
      const auto hook = shared_->With([](FakeEtcdState& state) {
        ++state.txns;
        return state.on_txn;
      });
      if (hook) {
        if (grpc::Status status = hook(*context); !status.ok()) return status;
      }
      return shared_->With([&](FakeEtcdState& state) {
        ++state.revision;
        Sign(state, *response->mutable_header());
        response->set_succeeded(true);
        return grpc::Status::OK;
      });
    }

   private:
    const std::shared_ptr<Shared> shared_;
  };

  class LeaseService final : public etcdserverpb::Lease::Service {
   public:
    explicit LeaseService(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
    grpc::Status LeaseGrant(grpc::ServerContext*, const etcdserverpb::LeaseGrantRequest*,
                            etcdserverpb::LeaseGrantResponse* response) override {
      response->set_id(7);
      return shared_->With([](FakeEtcdState& state) {
        ++state.grants;
        return state.on_grant ? state.on_grant() : grpc::Status::OK;
      });
    }
    grpc::Status LeaseRevoke(grpc::ServerContext*, const etcdserverpb::LeaseRevokeRequest*,
                             etcdserverpb::LeaseRevokeResponse*) override {
      return shared_->With([](FakeEtcdState& state) {
        ++state.revokes;
        return state.on_revoke ? state.on_revoke() : grpc::Status::OK;
      });
    }

   private:
    const std::shared_ptr<Shared> shared_;
  };

  class WatchService final : public etcdserverpb::Watch::Service {
   public:
    explicit WatchService(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
    grpc::Status Watch(
        grpc::ServerContext* context,
        grpc::ServerReaderWriter<etcdserverpb::WatchResponse, etcdserverpb::WatchRequest>* stream) override {
      const int serial = shared_->With([](FakeEtcdState& state) { return ++state.streams; });
      std::thread reader([shared = shared_, stream] {
        etcdserverpb::WatchRequest request;
        while (stream->Read(&request)) {
          shared->With([&](FakeEtcdState& state) {
            etcdserverpb::WatchResponse answer;
            Sign(state, *answer.mutable_header());
            if (request.has_create_request()) {
              state.creates.push_back(request.create_request());
              answer.set_created(true);
              answer.set_watch_id(request.create_request().watch_id());
              state.outbox.push_front(answer);
            } else {
              ++state.probes;
              answer.set_watch_id(-1);
              if (state.answers_probes) state.outbox.push_back(answer);
            }
          });
        }
      });
      bool ended = false;
      while (!context->IsCancelled() && !ended) {
        const std::deque<etcdserverpb::WatchResponse> due = shared_->With([serial](FakeEtcdState& state) {
          return serial == state.streams ? std::exchange(state.outbox, {}) : std::deque<etcdserverpb::WatchResponse>();
        });
        for (const etcdserverpb::WatchResponse& message : due) {
          ended = ended || (message.canceled() && message.compact_revision() == 0);
          stream->Write(message);
        }
        if (due.empty()) shared_->WaitABit();
      }
      context->TryCancel();
      reader.join();
      return grpc::Status::OK;
    }

   private:
    const std::shared_ptr<Shared> shared_;
  };

  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  Kv kv_;
  LeaseService lease_;
  WatchService watch_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kdn

#endif  // KDN_TESTS_PLACEMENT_REGISTRY_FAKE_ETCD_H_
