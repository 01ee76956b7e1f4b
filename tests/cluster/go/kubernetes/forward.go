package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

// forward accepts connections on the inherited socket number fd, which may listen in another network namespace, and
// passes each on to address in this one. It does not return.
func forward(fd, address string) {
	number, err := strconv.Atoi(fd)
	if err != nil {
		fail(err)
	}
	listener, err := net.FileListener(os.NewFile(uintptr(number), "listener"))
	if err != nil {
		fail(err)
	}
	for {
		outside, err := listener.Accept()
		if err != nil {
			fail(err)
		}
		go join(outside.(*net.TCPConn), address)
	}
}

func join(outside *net.TCPConn, address string) {
	defer outside.Close()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		outside.SetLinger(0) // refused inside is reset outside
		return
	}
	inside := connection.(*net.TCPConn)
	defer inside.Close()
	done := make(chan struct{})
	go func() {
		io.Copy(inside, outside)
		inside.CloseWrite()
		close(done)
	}()
	io.Copy(outside, inside)
	outside.CloseWrite()
	<-done
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "forward:", err)
	os.Exit(1)
}
