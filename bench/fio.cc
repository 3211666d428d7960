#include "bench/fio.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "storage/base/status.h"

namespace kdn::bench {

absl::StatusOr<double> RunFio(const std::string& directory, const FioJob& job) {
  const uint64_t per_job = job.mib / job.jobs;
  std::string command = fmt::format(
      "fio --output-format=json --name=kdn --filename={}/fio.bin --rw={} --bs=1M --direct={} --ioengine=psync "
      "--size={}M --numjobs={} --offset_increment={}M --thread --group_reporting --invalidate=1 --fallocate=none",
      directory, job.rw, job.direct ? 1 : 0, per_job, job.jobs, per_job);
  if (job.rw == "write") {
    command += job.sync_mib > 0 ? fmt::format(" --fdatasync={} --end_fsync=1", job.sync_mib) : " --end_fsync=1";
  }
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return Unavailable("fio cannot be started");
  std::string output;
  char chunk[4096];
  for (size_t n = 0; (n = std::fread(chunk, 1, sizeof chunk, pipe)) > 0;) output.append(chunk, n);
  const int exit = pclose(pipe);
  const nlohmann::json result = nlohmann::json::parse(output.substr(std::min(output.find('{'), output.size())), nullptr,
                                                      /*allow_exceptions=*/false);
  const auto failed = [&] { return Unavailable("fio failed (status {}): {}", exit, output.substr(0, 400)); };
  if (exit != 0 || !result.contains("jobs") || result["jobs"].empty()) return failed();
  const nlohmann::json& side = result["jobs"][0][job.rw];
  if (job.rw == "read") return side.value("bw_bytes", 0.0) / 1e9;
  // fio's own rate leaves out the last sync; the job's time does not.
  const double seconds = result["jobs"][0].value("job_runtime", 0.0) / job.jobs / 1e3;
  const double rate = side.value("io_bytes", 0.0) / 1e9;
  return seconds > 0 ? rate / seconds : side.value("bw_bytes", 0.0) / 1e9;
}

}  // namespace kdn::bench
