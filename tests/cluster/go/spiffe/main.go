// Command spiffe says what go-spiffe makes of X509-SVIDs:
//
//	spiffe ROOTS.pem TRUST-DOMAIN CHAIN.pem KEY.pem [CHAIN.pem KEY.pem ...]
//
// One line of JSON a pair: {"id": ...}, or {"error": ...} when it does not parse or does not verify.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

func judge(bundle *x509bundle.Bundle, chain, key string) (string, error) {
	svid, err := x509svid.Load(chain, key)
	if err != nil {
		return "", err
	}
	id, _, err := x509svid.Verify(svid.Certificates, bundle)
	return id.String(), err
}

func main() {
	if len(os.Args) < 5 || len(os.Args)%2 == 0 {
		fmt.Fprintln(os.Stderr, "usage: spiffe ROOTS.pem TRUST-DOMAIN CHAIN.pem KEY.pem [CHAIN.pem KEY.pem ...]")
		os.Exit(2)
	}
	domain, err := spiffeid.TrustDomainFromString(os.Args[2])
	if err == nil {
		var bundle *x509bundle.Bundle
		if bundle, err = x509bundle.Load(domain, os.Args[1]); err == nil {
			for at := 3; at < len(os.Args); at += 2 {
				said := map[string]string{}
				if id, err := judge(bundle, os.Args[at], os.Args[at+1]); err != nil {
					said["error"] = err.Error()
				} else {
					said["id"] = id
				}
				line, _ := json.Marshal(said)
				fmt.Println(string(line))
			}
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
