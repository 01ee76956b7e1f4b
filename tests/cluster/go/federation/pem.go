package main

import (
	"crypto/x509"
	"encoding/pem"
)

// certificatesIn are those of a PEM text, leaf first.
func certificatesIn(text []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return found, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found, text = append(found, certificate), rest
	}
}
