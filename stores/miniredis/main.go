// An in-memory imitation of Redis as a server that is started as redis-server is; of its arguments it takes --port alone.
package main

import (
	"fmt"
	"os"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	port := "6379"
	for i, arg := range os.Args {
		if arg == "--port" && i+1 < len(os.Args) {
			port = os.Args[i+1]
		}
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr("127.0.0.1:" + port); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}
