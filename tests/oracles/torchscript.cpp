// Runs a TorchScript file as a C++ program does: reads tensors of float32, calls forward, writes what it gives.
#include <torch/script.h>

#include <cstdint>
#include <fstream>
#include <vector>

static torch::Tensor taken(std::istream& from) {
    int64_t rank;
    from.read(reinterpret_cast<char*>(&rank), sizeof rank);
    std::vector<int64_t> sizes(rank);
    from.read(reinterpret_cast<char*>(sizes.data()), rank * sizeof(int64_t));
    torch::Tensor tensor = torch::empty(sizes);
    from.read(reinterpret_cast<char*>(tensor.data_ptr<float>()), tensor.numel() * sizeof(float));
    return tensor;
}

static void given(const torch::Tensor& result, std::ostream& to) {
    torch::Tensor tensor = result.contiguous().to(torch::kFloat32);
    int64_t rank = tensor.dim();
    to.write(reinterpret_cast<const char*>(&rank), sizeof rank);
    to.write(reinterpret_cast<const char*>(tensor.sizes().data()), rank * sizeof(int64_t));
    to.write(reinterpret_cast<const char*>(tensor.data_ptr<float>()), tensor.numel() * sizeof(float));
}

int main(int count, char** arguments) {
    torch::jit::script::Module module = torch::jit::load(arguments[1]);
    module.eval();
    std::ifstream from(arguments[2], std::ios::binary);
    std::ofstream to(arguments[3], std::ios::binary);
    std::vector<torch::IValue> inputs;
    while (from.peek() != EOF) inputs.emplace_back(taken(from));
    torch::NoGradGuard no_gradients;
    torch::IValue result = module.forward(inputs);
    if (result.isTensor()) {
        given(result.toTensor(), to);
    } else {
        for (const torch::IValue& item : result.toTupleRef().elements()) given(item.toTensor(), to);
    }
    return count == 4 ? 0 : 1;
}
