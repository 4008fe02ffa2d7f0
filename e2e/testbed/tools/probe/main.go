// What pods of tests run: a server that says its name, a client, a look-up, a file; and the program of every pod's sandbox, which
// only waits. One static program, so that an image is this file and nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const patience = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "pause":
		return pause()
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 3 && args[0] == "get":
		return get(args[1], args[2])
	case len(args) > 1 && args[0] == "connect":
		return connect(args[1:])
	case len(args) == 2 && args[0] == "lookup":
		return lookup(args[1])
	case len(args) == 3 && args[0] == "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o600)
	case len(args) == 2 && args[0] == "read":
		text, err := os.ReadFile(args[1])
		fmt.Print(string(text))
		return err
	}
	return fmt.Errorf("usage: probe pause | serve ADDRESS | get URL TIMES | connect ADDRESS... | lookup NAME | write FILE TEXT | read FILE")
}

// pause waits for SIGTERM. As the first process of a pod it also inherits the pod's orphans, whose ends it collects.
func pause() error {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range ends {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
	return nil
}

// serve answers each request with the pod's name, and says on standard output that it was asked.
func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	answer := func(writer http.ResponseWriter, request *http.Request) {
		fmt.Println("asked for", request.URL.Path)
		fmt.Fprintln(writer, name)
	}
	server := http.Server{Addr: address, Handler: http.HandlerFunc(answer), ReadHeaderTimeout: patience}
	ends, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ends, func() { server.Close() })
	fmt.Println("serving as", name)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// get asks `times` times, each over a connection of its own, and prints how often it got which answer.
func get(url, times string) error {
	count, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answers := map[string]int{}
	for range count {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return err
		}
		answers[strings.TrimSpace(string(body))]++
	}
	lines := make([]string, 0, len(answers))
	for answer, count := range answers {
		lines = append(lines, fmt.Sprintf("%d %s", count, answer))
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
	return nil
}

// connect opens a TCP connection to each address, all at once, and prints how that went, a line for each: "open"; "refused", when
// somebody is there who doesn't listen; "silent", when nobody answers.
func connect(addresses []string) error {
	outcomes := make([]string, len(addresses))
	var all sync.WaitGroup
	for index, address := range addresses {
		all.Go(func() {
			connection, err := net.DialTimeout("tcp", address, 3*time.Second)
			var network net.Error
			switch {
			case err == nil:
				connection.Close()
				outcomes[index] = "open"
			case errors.Is(err, syscall.ECONNREFUSED):
				outcomes[index] = "refused"
			case errors.As(err, &network) && network.Timeout():
				outcomes[index] = "silent"
			default:
				outcomes[index] = err.Error()
			}
		})
	}
	all.Wait()
	for index, address := range addresses {
		fmt.Println(address, outcomes[index])
	}
	return nil
}

// lookup prints a name's addresses, one per line.
func lookup(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	sort.Strings(addresses)
	fmt.Println(strings.Join(addresses, "\n"))
	return nil
}
