module go-shop

go 1.26
