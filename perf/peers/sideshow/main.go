// Peer of push: sideshow/apns2, which gorush sends with too, as its documentation shows it: one client, many
// goroutines. Arguments and lines as of ../apns2/push.js.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
)

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

func tokenOf(n int) string {
	return fmt.Sprintf("%016x%048x", uint64(n)*0x9e3779b97f4a7c15, n)
}

func run(client *apns2.Client, payload []byte, tokens []string, underWay int) int64 {
	var next, good int64
	var group sync.WaitGroup
	expiration := time.Unix(1900000000, 0)
	for i := 0; i < underWay && i < len(tokens); i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				at := atomic.AddInt64(&next, 1) - 1
				if at >= int64(len(tokens)) {
					return
				}
				answer, err := client.Push(&apns2.Notification{
					DeviceToken: tokens[at], Topic: "com.example.app", Payload: payload,
					Priority: apns2.PriorityHigh, Expiration: expiration,
				})
				if err == nil && answer.Sent() {
					atomic.AddInt64(&good, 1)
				}
			}
		}()
	}
	group.Wait()
	return good
}

func main() {
	port, bytes, underWay := os.Args[1], number(os.Args[5]), number(os.Args[6])
	key, err := token.AuthKeyFromFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: os.Args[3], TeamID: os.Args[4]})
	client.Host = "https://localhost:" + port
	payload := []byte(`{"aps":{"alert":"` + strings.Repeat("x", bytes-len(`{"aps":{"alert":""}}`)) + `"}}`)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		line := strings.Fields(in.Text())
		tokens := make([]string, number(line[1]))
		for i := range tokens {
			tokens[i] = tokenOf(number(line[0]) + i)
		}
		fmt.Println("ready")
		in.Scan()
		fmt.Println(run(client, payload, tokens, underWay))
	}
}
