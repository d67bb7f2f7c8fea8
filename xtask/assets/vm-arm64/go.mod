module vm-arm64

go 1.26
