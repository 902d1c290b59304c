// A compiled forward as an operator. Operators run without Python's lock; AOTInductor's own binding keeps it, and a
// server's event loop would stand still for as long as a batch takes.
#include <ATen/core/Tensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/library.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sluice {
namespace {

using torch::inductor::AOTIModelPackageLoader;

std::mutex loading;
std::vector<std::unique_ptr<AOTIModelPackageLoader>> loaded;

int64_t load_forward(const std::string& path) {
  auto loader = std::make_unique<AOTIModelPackageLoader>(path, "model", /*run_single_threaded=*/true);
  const std::lock_guard<std::mutex> lock(loading);
  loaded.push_back(std::move(loader));
  return static_cast<int64_t>(loaded.size()) - 1;
}

at::Tensor forward(const at::Tensor& ids, const at::Tensor& positions, const at::Tensor& cu_seqlens, int64_t handle) {
  AOTIModelPackageLoader* loader;
  {
    const std::lock_guard<std::mutex> lock(loading);
    loader = loaded.at(handle).get();
  }
  return loader->run({ids, positions, cu_seqlens}).at(0);
}

}  // namespace
}  // namespace sluice

TORCH_LIBRARY_FRAGMENT(sluice_native, library) {
  library.def("load_forward(str path) -> int", sluice::load_forward);
  library.def("forward(Tensor ids, Tensor positions, Tensor cu_seqlens, int handle) -> Tensor");
}

TORCH_LIBRARY_IMPL(sluice_native, CPU, library) { library.impl("forward", sluice::forward); }
