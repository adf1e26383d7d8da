// Runs a sequence of compiled kernels on a processor for which there is no TVM runtime.
//
//   harness SCRIPT OUTPUT
//
// SCRIPT is lines of text, each `tensor` line followed by its bytes:
//   tensor NAME CODE BITS NDIM EXTENT...   a tensor with values (DLPack's type code)
//   room NAME CODE BITS NDIM EXTENT...     a tensor that a kernel will write; filled with junk
//   call KERNEL COUNT NAME...              call a kernel on tensors
//   write NAME                             write the bytes of a tensor to OUTPUT
// KERNELS, the table of the kernels that are linked in, is generated beside this file.

#include <tvm/ffi/c_api.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

using Kernel = int (*)(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);
struct Entry {
  const char* name;
  Kernel kernel;
};
extern const Entry KERNELS[];
extern const int KERNEL_COUNT;

namespace {

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "harness: " << what << std::endl;
  std::exit(1);
}

constexpr size_t ALIGNMENT = 64;
constexpr int JUNK = 77;

struct Tensor {
  DLTensor view{};
  std::vector<int64_t> shape, strides;
  size_t bytes = 0;
};

std::unique_ptr<Tensor> read_header(std::istream& script) {
  int code = 0, bits = 0, dimensions = 0;
  script >> code >> bits >> dimensions;
  auto tensor = std::make_unique<Tensor>();
  tensor->shape.resize(dimensions);
  for (int64_t& extent : tensor->shape) script >> extent;
  if (script.get() != '\n') fail("a line of a tensor does not end where it should");
  tensor->strides.resize(dimensions);
  int64_t count = 1;
  for (int index = dimensions - 1; index >= 0; --index) {
    tensor->strides[index] = count;
    count *= tensor->shape[index];
  }
  tensor->bytes = static_cast<size_t>(count) * bits / 8;
  void* data = std::aligned_alloc(ALIGNMENT, (tensor->bytes / ALIGNMENT + 1) * ALIGNMENT);
  if (data == nullptr) fail("out of memory");
  std::memset(data, JUNK, tensor->bytes);
  tensor->view.data = data;
  tensor->view.device = {kDLCPU, 0};
  tensor->view.ndim = dimensions;
  tensor->view.dtype = {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1};
  tensor->view.shape = tensor->shape.data();
  tensor->view.strides = tensor->strides.data();
  return tensor;
}

using Tensors = std::map<std::string, std::unique_ptr<Tensor>>;

Tensor& find(const Tensors& tensors, const std::string& name) {
  auto found = tensors.find(name);
  if (found == tensors.end()) fail("no tensor " + name);
  return *found->second;
}

void call(std::istream& script, const Tensors& tensors) {
  std::string name, argument;
  int count = 0;
  script >> name >> count;
  std::vector<TVMFFIAny> arguments(count);
  for (TVMFFIAny& value : arguments) {
    script >> argument;
    value = {};
    value.type_index = kTVMFFIDLTensorPtr;
    value.v_ptr = &find(tensors, argument).view;
  }
  for (int index = 0; index < KERNEL_COUNT; ++index) {
    if (name != KERNELS[index].name) continue;
    TVMFFIAny result{};
    if (KERNELS[index].kernel(nullptr, arguments.data(), count, &result) != 0) fail(name + " failed");
    return;
  }
  fail("no kernel " + name);
}

int launch_serially(int (*body)(int, void*, void*), void* closure, int) {
  struct {
    void* sync;
    int32_t tasks;
  } group{nullptr, 1};
  return body(0, &group, closure);
}

void* allocate(int, int, uint64_t bytes, int, int) {
  return std::aligned_alloc(ALIGNMENT, (static_cast<size_t>(bytes) / ALIGNMENT + 1) * ALIGNMENT);
}

int release(int, int, void* memory) {
  std::free(memory);
  return 0;
}

}  // namespace

extern "C" {

// Kernels call the runtime through these variables, which TVM fills when it loads a library.
decltype(&launch_serially) __TVMBackendParallelLaunch = launch_serially;
decltype(&allocate) __TVMBackendAllocWorkspace = allocate;
decltype(&release) __TVMBackendFreeWorkspace = release;

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  std::cerr << kind << ": " << message << std::endl;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  std::cerr << kind << ": ";
  for (int32_t index = 0; index < count; ++index) std::cerr << parts[index];
  std::cerr << std::endl;
}
}

int main(int count, char** arguments) {
  if (count != 3) fail("needs a script and an output");
  std::ifstream script(arguments[1], std::ios::binary);
  Tensors tensors;
  std::string verb, name;
  while (script >> verb) {
    if (verb == "call") {
      call(script, tensors);
      continue;
    }
    script >> name;
    if (verb == "write") {
      const Tensor& tensor = find(tensors, name);
      std::ofstream(arguments[2], std::ios::binary).write(static_cast<char*>(tensor.view.data), tensor.bytes);
      continue;
    }
    auto tensor = read_header(script);
    if (verb == "tensor" && !script.read(static_cast<char*>(tensor->view.data), tensor->bytes)) fail("too short");
    tensors[name] = std::move(tensor);
  }
}
