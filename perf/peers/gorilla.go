// Peer of ws-broadcast: gorilla/websocket with a prepared message, its fastest way to send one message
// to many. Prints its port; then each line of stdin is a number of bytes, followed by the message.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

var (
	upgrader = websocket.Upgrader{
		CheckOrigin: func(r *http.Request) bool { return true },
		// small buffers: the default 4 KiB each only cost memory here
		ReadBufferSize: 512, WriteBufferSize: 512,
	}
	lock    sync.Mutex
	clients = map[*websocket.Conn]struct{}{}
)

func serve(w http.ResponseWriter, r *http.Request) {
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	lock.Lock()
	clients[c] = struct{}{}
	lock.Unlock()
	for {
		if _, _, err := c.NextReader(); err != nil {
			break
		}
	}
	lock.Lock()
	delete(clients, c)
	lock.Unlock()
	c.Close()
}

func broadcast(message []byte) {
	prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, message)
	if err != nil {
		panic(err)
	}
	lock.Lock()
	defer lock.Unlock()
	for c := range clients {
		c.WritePreparedMessage(prepared)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(serve))
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(strings.TrimSpace(line))
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		broadcast(message)
	}
}
