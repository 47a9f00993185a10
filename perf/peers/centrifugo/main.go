// Peer of ws-broadcast: centrifuge, the library that Centrifugo is made of, with its JSON protocol over
// WebSocket and one channel that every connection is subscribed to when it connects. Prints its port;
// then each line of stdin is a number of bytes, followed by the message (which goes out as the data of a
// publication, in the library's envelope).
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/centrifugal/centrifuge"
)

const channel = "all"

func main() {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelError})
	if err != nil {
		panic(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: "perf"},
			Data:          []byte(`{"t":"welcome"}`),
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
			// its own pings are messages; none shall fall into a round
			PingPongConfig: &centrifuge.PingPongConfig{PingInterval: -1, PongTimeout: -1},
		}, nil
	})
	if err := node.Run(); err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	handler := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin: func(*http.Request) bool { return true },
		// small buffers: the default sizes only cost memory here
		ReadBufferSize: 512, WriteBufferSize: 512,
	})
	mux := http.NewServeMux()
	mux.Handle("/v1/ws", handler)
	go http.Serve(listener, mux)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			panic(err)
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		// JSON protocol: the data must be JSON
		if _, err := node.Publish(channel, []byte(strconv.Quote(string(message)))); err != nil {
			panic(err)
		}
	}
}
