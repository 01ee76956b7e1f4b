// Command signing says how many leaves Go's standard library signs a second on one core: a P-256 issuer, the same
// fields and extensions as the ca's. For tests/bench.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"runtime"
	"syscall"
	"time"
)

// spent is the CPU time of this process, in seconds: others may use the core too.
func spent() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	runtime.GOMAXPROCS(1)
	issuerKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	now := time.Now()
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		SubjectKeyId: []byte("issuer"), NotBefore: now, NotAfter: now.Add(time.Hour),
	}
	id, _ := url.Parse("spiffe://cluster.local/ns/default/sa/bookinfo-reviews")
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	done, began := 0, spent()
	for spent()-began < 1 {
		serial, _ := rand.Int(rand.Reader, limit)
		leaf := &x509.Certificate{
			SerialNumber: serial, NotBefore: now, NotAfter: now.Add(24 * time.Hour), URIs: []*url.URL{id},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages, BasicConstraintsValid: true,
			SubjectKeyId: []byte("12345678901234567890"),
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, &key.PublicKey, issuerKey)
		if err != nil {
			panic(err)
		}
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		done++
	}
	fmt.Printf("%.0f\n", float64(done)/(spent()-began))
}
